"""What there is to say of a method, for ``fer-bench show`` and docs/methods-list.md. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from fer_bench.contract.cards import FAMILIES, NEEDS, MethodCard
from fer_bench.contract.costs import cost_of
from fer_bench.contract.params import Choice, Param, Scale, Space, in_words
from fer_bench.contract.plugins import Plugin, Plugins

RECIPE = "brief"  # the recipe of the commands that are shown: minutes on a CPU


def by_family(available: Plugins) -> list[MethodCard]:
    """All methods' cards, in the order of the families, then by name."""
    families = list(FAMILIES)
    return sorted((p.card for p in available.methods.values()), key=lambda c: (families.index(c.family), c.name))


def variants_of(card: MethodCard) -> dict[str, str]:
    """The names of its variants, with what is typed for each: ``{"balanced_softmax": "logit_adjust[tau=1]"}``."""
    return {name: f"{card.name}[{params}]" if params else card.name for name, params in card.also_known.items()}


def facts_of(card: MethodCard) -> Iterator[tuple[str, str]]:
    """What kind of fact, and the fact, line by line."""
    if card.paper:
        yield "paper", card.paper
    if card.year and str(card.year) not in card.paper:
        yield "year", str(card.year)
    if card.url:
        yield "url", card.url
    yield "family", f"{card.family}: {FAMILIES[card.family]}"
    yield "tier", card.tier
    if card.changes:
        yield "changes", card.changes
    if card.readout_of:
        yield "reads out", f"the network of {card.readout_of}; it trains none of its own"
    for need in card.needs:
        meaning = NEEDS.get(need, f"images of at least {need}").replace("`", "")
        yield "needs", f"{need}: {meaning}"
    if card.transductive:
        yield "transductive", "it reads other test images; its results are watermarked"
    if card.calibration:
        yield "calibration", card.calibration
    for line in card.deviations:
        yield "deviation", line
    for name, variant in variants_of(card).items():
        yield "known as", f"{name} is {variant}"


def arms_of(card: MethodCard) -> Iterator[tuple[str, str]]:
    """The name of each arm of its ablation, and what it is."""
    for number, (name, arm) in enumerate(card.arms.items()):
        parts = [arm.variant] if number else [arm.variant, "the baseline"]
        if arm.adds:
            parts.append(f"adds {arm.adds} to '{arm.to}'")
        elif arm.to:
            parts.append(f"compared with '{arm.to}'")
        parts += [f"the control for extra capacity is '{arm.control}'"] if arm.control else []
        yield name, ", ".join(parts)


def cost_in_words(plugin: Plugin[MethodCard]) -> str:
    """What training costs beside plain cross-entropy; empty if that was not measured."""
    cost = cost_of(plugin)
    if plugin.card.readout_of:
        return f"nothing beyond the training of {plugin.card.readout_of}"
    if cost is None:
        return ""
    text = f"{cost.time:.1f} x the training time, {cost.kept:.2f} x the memory that a step keeps, "
    return text + f"{cost.weights:.2f} x the weights of plain cross-entropy"


def default_of(param: Param) -> str:
    """A parameter's default and what else it accepts: ``2.0  (0 to 10)``."""
    accepted = f"  ({'one of ' * bool(param.choices)}{param.accepts})" if param.accepts else ""
    return f"{param.default}{accepted}"


def space_in_words(space: Space) -> str:
    """A search space in words: ``0.5 to 0.99, log scale``."""
    if isinstance(space, Choice):
        return ", ".join(map(str, space.options))
    if isinstance(space, Scale):
        return f"{space.low:g} to {space.high:g} times the default, log scale"
    return in_words(space.low, space.high) + ", log scale" * space.log


def commands_of(card: MethodCard, available: Plugins, *, measured: bool = True) -> Iterator[tuple[str, str]]:
    """What a command is for, and the command: it works as it is printed, on data that are drawn."""
    plain = plain_method(available)
    others = [plain] if plain not in ("", card.name) else []
    place = [*_data_for(card, available), "--recipe", RECIPE]
    yield "run", shlex.join(["fer-bench", "run", card.name, *others, *place])
    if card.params:
        first, param = next(iter(card.params.items()))
        yield "change", shlex.join(["fer-bench", "run", f"{card.name}[{first}={_other(param)}]", card.name, *place])
    if card.arms:
        yield "ablate", shlex.join(["fer-bench", "ablate", card.name, *place])
    if any(param.space for param in card.params.values()):
        yield "tune", shlex.join(["fer-bench", "tune", card.name, *others, *place, "--trials", "20"])
    if not measured:
        yield "measure", shlex.join(["fer-bench", "check", card.name])


def _data_for(card: MethodCard, available: Plugins) -> list[str]:
    """Options that name data on which a method can be run: drawn ones, or a protocol with votes if it needs them."""
    if "votes" in card.needs:
        for name, plugin in sorted(available.datasets.items()):
            protocol = next((p for p in plugin.card.protocols if p.soft), None)
            if protocol is not None and plugin.origin == "built in":
                return ["--dataset", name, "--protocol", protocol.name]
    return ["--dataset", drawn_dataset(available)]


def _other(param: Param) -> str:
    """A value that is accepted, and another one than the default where the card says of one."""
    space = param.space
    ends = space.options if isinstance(space, Choice) else (space.low, space.high) if space else ()
    listed = (*(param.choices or ()), *([] if isinstance(space, Scale) else ends), *param.special, *param.words)
    ranged = [v for v in (param.low, param.high) if v is not None and param.choices is None]
    values = [*listed, *([not param.default] if isinstance(param.default, bool) else ()), *ranged]
    return str(next((v for v in values if v != param.default), param.default))


def plain_method(available: Plugins) -> str:
    """The built-in plain baseline: the method beside which others are shown; empty if there is none."""
    cards = [p.card for p in available.methods.values() if p.origin == "built in"]
    return min((c.name for c in cards if c.tier == c.family == "baseline"), default="")


def drawn_dataset(available: Plugins) -> str:
    """The built-in data set that needs no files; NAME if there is none."""
    return min((n for n, p in available.datasets.items() if p.origin == "built in" and p.card.built_in), default="NAME")
