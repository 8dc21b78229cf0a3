r"""A report for LaTeX: one file a table, to be ``\input`` in a paper, and ``main.tex``, which joins them into a report.

The files are ASCII, for pdflatex. A table needs the packages booktabs, array and graphicx (it is made smaller where it
is wider than the line or nearly as tall as the page), and ``\usepackage[T1]{fontenc}``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from pylatexenc.latexencode import RULE_DICT, RULE_REGEX, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from fer_bench.reports.render.blocks import (
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Link,
    Notice,
    Outline,
    Picture,
    TableBlock,
)
from fer_bench.reports.render.marks import Span, plain, spans

LONG = 40  # characters from which a cell of text breaks into lines

# pylatexenc escapes text, with three restrictions:
# - Of its 1540 characters outside ASCII, 512 need packages that a paper may not load, and stop pdflatex without them
#   (all Cyrillic letters, for example). Only TRUSTED ones are left to it; a test compiles each of them.
# - It gets quotes in code, the accent of Ű and the root sign wrong, and lacks a few signs that reports use. OWN has
#   these, and the signs of which tables are full in a form that is easy to read and edit.
# - It lacks many letters with an accent (Vietnamese, for example), which ACCENTS makes.
OWN = {'"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "|": r"\textbar{}", "<": r"\textless{}"}
OWN |= {">": r"\textgreater{}", "–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "⚠": r"$\triangle$"}
OWN |= {"Ű": r"\H{U}", "ű": r"\H{u}", "√": r"$\surd$", "∅": r"$\emptyset$", "\u202f": r"\,", "\u200b": ""}
TRUSTED = r"\x20-\x7e\u00a0-\u0148\u014a-\u017f\u0391-\u03c9"  # Latin and Greek letters
TRUSTED += r"\u2002-\u200a\u2010\u2012-\u2027\u2030-\u2034\u2039\u203a\u2070-\u2089€™←-↙⇐-⇔"
TRUSTED += "∀∂∃∆∇∈∉∋∏∑∓∗∘∙∝∞∣∥∧∨∩∪∫∼≃≅≈≠≡≤≥≪≫⊂⊃⊆⊇⊕⊖⊗⊘⊙⊢⊥⋅⋆⋮⋯⌈⌉⌊⌋△○ℓ"
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
ACCENTS |= {"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0328": "k"}

# In the report a table stands where it is spoken of; in a paper, where the paper's class puts a float.
PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[margin=2.5cm]{geometry}
\usepackage{array,booktabs,graphicx}
\makeatletter
\renewenvironment{table}[1][]
  {\par\medskip\noindent\begin{minipage}{\linewidth}\def\@captype{table}}
  {\end{minipage}\par\medskip}
\makeatother
\setlength{\abovecaptionskip}{0pt}
\setlength{\belowcaptionskip}{6pt}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}
\sloppy"""
OWNED = "This folder is written anew with every report: copy what you want to change."


def files(document: Document, name: str = "main") -> dict[str, str]:
    """Text by file name: ``<id>.tex`` for every table, and ``<name>.tex``, which joins them."""
    out = {f"{b.id}.tex": table_latex(b, document.origin) for b in document.tables}
    return out | {f"{name}.tex": _main(document)}


def table_latex(block: TableBlock, origin: Sequence[str] = ()) -> str:
    """A float with a caption, a label and a booktabs table; `origin` stands above as comments."""
    table = block.table
    body, foot = (["    " + _row(row) for row in rows] for rows in block.parts)
    lines = [
        *map(_comment, (*origin, "needs booktabs, array, graphicx, and fontenc with T1")),
        r"\begin{table}[htbp]",
        r"  \centering",
        f"  \\caption{{{_sentences(block.title, table.caption)}}}",
        f"  \\label{{tab:{block.id}}}",
        r"  \resizebox*{!}{\ifdim\totalheight>0.8\textheight 0.8\textheight\else\totalheight\fi}{%",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"  \\begin{{tabular}}{{{_columns(block)}}}",
        r"    \toprule",
        "    " + _row(table.titles),
        r"    \midrule",
        *body,
        *([r"    \midrule", *foot] if foot else []),
        r"    \bottomrule",
        r"  \end{tabular}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _sentences(*texts: str) -> str:
    return " ".join(marked(t if t.endswith(".") else t + ".") for t in texts if t)


def _columns(block: TableBlock) -> str:
    table = block.table
    longest = [max(len(plain(cell)) for cell in column) for column in zip(table.titles, *table.rows, strict=True)]
    return "".join("r" if right else _text_column(n) for right, n in zip(table.right, longest, strict=True))


def _text_column(longest: int) -> str:
    """A column of text; long ones break into lines, the longer the wider, so that tables stay low."""
    if longest <= LONG:
        return "l"
    return rf">{{\raggedright\arraybackslash}}p{{{min(max(longest // 14, 4), 10)}cm}}"


def _row(cells: Sequence[str]) -> str:
    # After the end of a line or a rule, [ and * would begin an argument.
    line = " & ".join(map(marked, cells))
    return "{}" * line.startswith(("[", "*")) + line + r" \\"


def _comment(text: str) -> str:
    return "% " + " ".join(text.split()).encode("ascii", "backslashreplace").decode()


def marked(text: str) -> str:
    """Marked text as LaTeX; the addresses of links are left out."""
    return "".join(map(_span, spans(" ".join(text.split()))))


def _span(span: Span) -> str:
    out = escaped(span.text)
    for wanted, command in ((span.code, "texttt"), (span.italic, "emph"), (span.bold, "textbf")):
        out = f"\\{command}{{{out}}}" if wanted else out
    return out


def escaped(text: str) -> str:
    """Plain text as LaTeX in ASCII; a letter that the usual fonts lack is named by its code point."""
    return _encoder().unicode_to_latex(unicodedata.normalize("NFC", text))


@cache
def _encoder() -> UnicodeToLatexEncoder:
    own = {ord(char): latex for char, latex in OWN.items()}
    patterns = [
        (re.compile(r"([-',])(?=\1)"), r"\1{}"),  # two of these would be joined into one sign
        (re.compile(f"[^{TRUSTED}]"), lambda match: _other(match[0])),
    ]
    return UnicodeToLatexEncoder(
        conversion_rules=[
            UnicodeToLatexConversionRule(RULE_DICT, own, replacement_latex_protection="none"),
            UnicodeToLatexConversionRule(RULE_REGEX, patterns, replacement_latex_protection="none"),
            "defaults",
        ],
        replacement_latex_protection="braces-after-macro",
        unknown_char_policy=_other,
        unknown_char_warning=False,
    )


def _other(char: str) -> str:
    """A character that the library can't write: a letter with its accent, its equivalent in ASCII, or its number."""
    base, *marks = list(unicodedata.normalize("NFD", char))
    if base.isascii() and len(marks) == 1 and marks[0] in ACCENTS:
        return f"\\{ACCENTS[marks[0]]}{{{base}}}"
    simple = unicodedata.normalize("NFKC", char)
    if simple != char and simple.isascii() and simple.isprintable():
        return escaped(simple)
    return f"[U+{ord(char):04X}]"


def _main(document: Document) -> str:
    lines = [*map(_comment, (OWNED, *document.origin)), PREAMBLE, f"\\title{{{escaped(document.title)}}}"]
    lines += [r"\date{}", r"\begin{document}", r"\maketitle", "", *map(_block, document.intro)]
    for part in document.parts:
        lines += ["", f"\\section{{{escaped(part.title)}}}", "", *map(_block, part.blocks)]
    return "\n".join([*lines, "", r"\end{document}"]) + "\n"


def _block(block: Block) -> str:
    match block:
        case TableBlock():
            return f"\\input{{{block.id}}}\n"
        case Figure(name, alt) | Picture(name, alt):
            path = f"../figures/{name}.png"
            content = rf"\includegraphics[width=\linewidth]{{{path}}}\\{marked(alt)}"
            boxed = rf"\begin{{minipage}}{{\linewidth}}\centering {content}\end{{minipage}}\par\medskip"
            return rf"\IfFileExists{{{path}}}{{{boxed}}}{{}}" + "\n"
        case Bullets(items):
            return "\n".join([r"\begin{itemize}", *(rf"  \item {{}}{marked(i)}" for i in items), r"\end{itemize}", ""])
        case Outline(items):
            inner = [_block(Bullets(more)) if more else "" for _, more in items]
            lines = [
                rf"  \item {{}}{marked(i)}" + f"\n{more}".rstrip() for (i, _), more in zip(items, inner, strict=True)
            ]
            return "\n".join([r"\begin{itemize}", *lines, r"\end{itemize}", ""])
        case Code(text):
            return "\n".join(rf"\texttt{{{escaped(line)}}}\par" for line in text.split("\n")) + "\n"
        case Link():
            return ""  # the files of a table or a paper have no pages beside them
        case Notice(text):
            return rf"\fbox{{\parbox{{0.95\linewidth}}{{$\triangle$ {marked(text)}}}}}" + "\n"
    return marked(block.text) + "\n"
