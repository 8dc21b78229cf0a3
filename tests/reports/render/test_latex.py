"""The LaTeX of a report: escaped, balanced, and compiled where there is a pdflatex."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from fer_bench.reports import build_report
from fer_bench.reports.render import latex
from fer_bench.reports.render.blocks import (
    Bullets,
    Code,
    Document,
    Notice,
    Outline,
    Paragraph,
    Part,
    Picture,
    TableBlock,
)
from fer_bench.reports.render.table import Table

NASTY = (
    r"a_b % c & d # $5 {e} ~f ^g \h <i> |j| ``k'' -- --- 'l' \"m\" [n] *o ± − ⚠ – é ß Ł ğ ñ “q” … → ≤ γ Σ Ω ο ² 愤 ⁂ ½"
)


def table(*rows: tuple[str, ...], titles=("Name", "Value"), caption="", name="mine", **options: Any) -> TableBlock:
    return TableBlock(Table(titles, tuple(i > 0 for i in range(len(titles))), rows, caption), name, "Mine", **options)


def one_part(*content) -> Document:
    return Document("a_study", (), (Part("first", "First", tuple(content)),), ("from é\nhere",))


def compile_latex(folder: Path) -> str:
    """Run pdflatex on ``main.tex`` without writing a PDF; returns the log."""
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex on this machine; the files were checked for balance and escapes only")
    program = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "main.tex"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "main.log").read_text(errors="replace")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b 5 % & #", r"a\_b 5 \% \& \#"),
        ("$x^2$ {y} ~z \\w", r"\$x\textasciicircum{}2\$ \{y\} \textasciitilde{}z \textbackslash{}w"),
        ("−0.7 ± 0.1 – ⚠", r"$-$0.7 $\pm$ 0.1 -- $\triangle$"),
        ("é ñ ß Ł ç", r"\'e \~n \ss{} \L{} \c{c}"),
        ("e\u0301", r"\'e"),
        ("Ű ạ Ǧ", r"\H{U} \d{a} \v{G}"),
        ("γ Σ Α ς ο", r"\ensuremath{\gamma} \ensuremath{\Sigma} A \ensuremath{\varsigma} o"),
        ("--ema ``", r"-{}-ema \textasciigrave{}\textasciigrave{}"),
        ("'' ,,, ---", "'{}' ,{},{}, -{}-{}-"),
        ("<a> |b|", r"\textless{}a\textgreater{} \textbar{}b\textbar{}"),
        ("愤 Ж ≨", "[U+6124] [U+0416] [U+2268]"),
        ("ﬁ ①", "fi 1"),
        ("1\u00a0000", "1~000"),
    ],
)
def test_text_is_escaped_for_latex(text, expected):
    assert latex.escaped(text) == expected


def test_every_letter_has_its_own_accent():
    """Against Unicode's decomposition, from which the escapes are not made."""
    commands = dict(
        zip(
            "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0328",
            "`'^~=u.\"rHvdck",
            strict=True,
        )
    )
    letters = 0
    for char in map(chr, [*range(0xC0, 0x250), *range(0x1E00, 0x1F00)]):
        base, *accents = unicodedata.normalize("NFD", char)
        if base.isascii() and len(accents) == 1 and accents[0] in commands:
            letter = rf"(\{{{base}\}}|{base}|\\{base}(\{{\}})?|\{{\\{base}\}})"  # \'e, \'{e}, \'\i{} or \'{\i}
            assert re.fullmatch(rf"\\{re.escape(commands[accents[0]])} ?{letter}", latex.escaped(char)), char
            letters += 1
    assert letters > 250


def test_every_sign_of_ours_compiles_without_further_packages(tmp_path):
    """A sign that needed a package would stop pdflatex."""
    trusted = re.compile(f"[{latex.TRUSTED}]")
    signs = [c for c in map(chr, range(0x20, 0x2800)) if trusted.match(c) and unicodedata.category(c) != "Cn"]
    assert len(signs) > 480
    text = " ".join(f"x{sign}x {sign}" for sign in [*signs, *latex.OWN, "ạ", "愤"])
    for name, source in latex.files(one_part(Paragraph(text), table((text, "1")))).items():
        assert source.isascii()
        (tmp_path / name).write_text(source)
    assert "Missing character" not in compile_latex(tmp_path)


def test_marks_become_commands():
    assert latex.marked("**`a_b`** *c* [d](https://x.org/%)") == r"\textbf{\texttt{a\_b}} \emph{c} d"


def test_a_table_is_a_float_with_caption_label_and_rules(check_latex):
    text = latex.table_latex(
        table(("[a]", "1"), ("*b", "2"), ("all", "3"), caption="Some 5 %.", footer=1), ("from here",)
    )
    assert text.splitlines() == [
        "% from here",
        "% needs booktabs, array, graphicx, and fontenc with T1",
        r"\begin{table}[htbp]",
        r"  \centering",
        r"  \caption{Mine. Some 5 \%.}",
        r"  \label{tab:mine}",
        r"  \resizebox*{!}{\ifdim\totalheight>0.8\textheight 0.8\textheight\else\totalheight\fi}{%",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"  \begin{tabular}{lr}",
        r"    \toprule",
        r"    Name & Value \\",
        r"    \midrule",
        r"    {}[a] & 1 \\",
        r"    {}*b & 2 \\",
        r"    \midrule",
        r"    all & 3 \\",
        r"    \bottomrule",
        r"  \end{tabular}}}",
        r"\end{table}",
    ]
    check_latex(text)


@pytest.mark.parametrize(("words", "width"), [(12, 4), (20, 7), (100, 10)])
def test_long_cells_break_into_lines_of_a_width_that_suits_them(check_latex, words, width):
    text = latex.table_latex(TableBlock(Table(("A", "B"), (False, False), (("x", "word " * words),)), "t", "T"))
    assert rf"\begin{{tabular}}{{l>{{\raggedright\arraybackslash}}p{{{width}cm}}}}" in text
    check_latex(text)


def test_a_long_table_of_sentences_fits_on_a_page(tmp_path):
    rows = tuple(("a name that is long enough to break", "accuracy", "74.14", "–15.2", "why: " * 35) for _ in range(20))
    block = TableBlock(Table(("Who", "What", "%", "ours", "Why"), (False, False, True, True, False), rows), "t", "T")
    for name, text in latex.files(one_part(block)).items():
        (tmp_path / name).write_text(text)
    assert "Overfull \\vbox" not in compile_latex(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        r"\textbf{a",
        r"\begin{table} \end{tabular}",
        "a_b",
        "a}",
        "é",
        "$a",
        r"\begin{tabular}{ll}" + "\n  a \\\\\n  b \\\\\n" + r"\end{tabular}",
    ],
)
def test_the_checker_would_find_a_fault(wrong, check_latex):
    with pytest.raises((AssertionError, IndexError)):
        check_latex(wrong)


def test_the_nastiest_text_compiles(tmp_path, check_latex):
    marked = [NASTY, f"**{NASTY}**", f"`{NASTY.replace('`', '')}`"]
    rows = [(m, m) for m in marked] + [("[x", "*y")]
    page = one_part(
        *(Paragraph(m) for m in marked),
        Notice(NASTY),
        Bullets((NASTY, "[a] bullet")),
        Outline(((NASTY, (NASTY, "[b]")), ("[c]", ()))),
        Picture("none", NASTY),
        Code(NASTY + "\nsecond line"),
        table(*rows, titles=(NASTY, "x"), caption=NASTY),
        *(table(("a", "b"), name=f"t-{i}") for i in range(20)),
    )
    files = latex.files(page)
    for name, text in files.items():
        check_latex(text)
        (tmp_path / name).write_text(text)
    log = compile_latex(tmp_path)
    assert "Missing character" not in log
    assert "multiply defined" not in log


def test_every_table_of_a_report_compiles_in_main(bench, tmp_path, check_latex):
    runs = [bench.run("base", 0, (40, 8, 90)), bench.run("better[a=<b>]", 0, (40, 18, 90))]
    study = bench.study(runs, ["better[a=<b>]", "base"])
    path = build_report(bench.ledger, study, tmp_path / "out", formats=["latex"])
    assert path == tmp_path / "out" / "tables" / "main.tex"
    main = path.read_text()
    names = set(re.findall(r"\\input\{([\w-]+)\}", main))
    assert names == {p.stem for p in path.parent.glob("*.tex")} - {"main"}
    assert {"recall", "gains", "scores", "leak", "confusion-base", "confusion-better-a-b", "settings"} <= names
    for file in path.parent.glob("*.tex"):
        check_latex(file.read_text())
    recall = (path.parent / "recall.tex").read_text()
    assert r"\textbf{disgust} & 40 & 20 & 90.0 [" in recall
    assert study["command"] in recall.splitlines()[0]
    assert all(run in recall for run in study["runs"])  # a table that travels alone still tells where it is from
    compile_latex(path.parent)
