"""Write docs/methods-list.md from the cards of the built-in methods. It reads cards only, and imports no torch.

python docs/make_methods_list.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fer_bench.cli.method_card import (
    by_family,
    commands_of,
    cost_in_words,
    default_of,
    facts_of,
    space_in_words,
    variants_of,
)
from fer_bench.contract.cards import FAMILIES, MethodCard
from fer_bench.contract.costs import cost_of, how_measured
from fer_bench.contract.plugins import Plugin, Plugins, plugins

PAGE = Path(__file__).parent / "methods-list.md"
COMMAND = "python docs/make_methods_list.py"
HEAD = f"""# All methods

Written by `{COMMAND}` from the cards of the methods. `fer-bench show NAME` prints a card,
`fer-bench list methods --family NAME` a family. How to write a method: [methods.md](methods.md).
"""


def built_in() -> Plugins:
    """The methods and data sets of this project, without what else is installed."""
    found = plugins()
    methods = {name: p for name, p in found.methods.items() if p.origin == "built in"}
    datasets = {name: p for name, p in found.datasets.items() if p.origin == "built in"}
    return Plugins(methods=methods, datasets=datasets)


def page(found: Plugins) -> str:
    """The page as Markdown."""
    cards, parts = by_family(found), [HEAD]
    how = {text: None for p in found.methods.values() if (text := how_measured(p))}
    if how:
        text = f"Time and memory are those of training beside plain cross-entropy, {'; '.join(how)}."
        parts.append(text + " An empty field: not measured.\n")
    for family, meaning in FAMILIES.items():
        of_family = [found.methods[c.name] for c in cards if c.family == family]
        if of_family:
            parts.append(f"## {sentence(family)}\n\n{sentence(meaning)}.\n")
            parts.append("\n".join(table(of_family)) + "\n")
            parts += ["\n".join(section(plugin, found)) + "\n" for plugin in of_family]
    return "\n".join(parts)


def table(methods: list[Plugin[MethodCard]]) -> Iterator[str]:
    """One line per method, and one per name under which a variant is known."""
    yield "| name | title | paper | parameters | time | memory |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for plugin in methods:
        card, cost = plugin.card, cost_of(plugin)
        paper = " ".join(filter(None, [card.paper.partition(",")[0], str(card.year or "")]))
        linked = f"[{escaped(paper)}]({card.url})" if card.url and paper else escaped(paper)
        ratios = ("", "") if cost is None else (f"{cost.time:.1f} x", f"{cost.kept:.2f} x")
        params = ", ".join(f"`{name}`" for name in card.params)
        yield f"| [`{card.name}`](#{card.name}) | {escaped(card.title)} | {linked} | {params} | {' | '.join(ratios)} |"
        for name, variant in variants_of(card).items():
            yield f"| `{name}` | is `{variant}` | | | | |"


def section(plugin: Plugin[MethodCard], found: Plugins) -> Iterator[str]:
    """The card of one method."""
    card = plugin.card
    yield f"### {card.name}\n"
    yield f"{escaped(card.title)}.\n"
    for kind, text in facts_of(card):
        if kind == "family":  # the heading says it
            continue
        yield f"- {kind}: {f'<{text}>' if kind == 'url' else escaped(text)}"
    yield f"- cost: {escaped(cost_in_words(plugin) or 'not measured')}"
    if card.params:
        yield "\n| parameter | default | tuned over | meaning |\n| --- | --- | --- | --- |"
    for name, param in card.params.items():
        space = escaped(space_in_words(param.space)) if param.space else ""
        yield f"| `{name}` | {escaped(default_of(param))} | {space} | {escaped(param.help)} |"
    yield "\n```bash"
    yield from (command for _, command in commands_of(card, found))
    yield "```"


def sentence(text: str) -> str:
    """The text with a capital letter."""
    return text[:1].upper() + text[1:]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(page(built_in()), encoding="utf-8")
