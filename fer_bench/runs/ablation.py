"""The arms of a method: which of them a command asks for, and what a study remembers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fer_bench.contract.arms import Arm
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.params import parse_variant
from fer_bench.contract.plugins import Plugins
from fer_bench.errors import FerBenchError, SpecError, VariantNameError, abbreviated, unknown


@dataclass(frozen=True)
class Ablation:
    """An ablation of a method: the arms that are trained, and the names of those of the card that are left out."""

    method: str
    arms: Mapping[str, Arm]
    left_out: tuple[str, ...] = ()

    def record(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """What the study's record says of it; `labels` are those of its methods, by the names of the arms.

        The arms form a list, because their order counts and JSON files are written with sorted keys.
        """
        arms = [{"name": name, "label": labels[name], **asdict(arm)} for name, arm in self.arms.items()]
        return {"method": self.method, "arms": arms, "left_out": list(self.left_out)}


def chosen_ablation(plugins: Plugins, method: str, chosen: str | None) -> Ablation:
    """The ablation of a method; of its arms those in `chosen`, names separated by commas, or all of them for None.

    The arms come in the order of the card.

    Raises
    ------
    UnknownNameError
        There is no such method, or it has no such arm.
    SpecError
        Its card lists no arms, an arm is asked for without the one that it is compared with, or an arm names a method
        or a value that does not exist.
    """
    card = plugins.method(method).card
    if not card.arms:
        known = sorted(p.card.name for p in plugins.methods.values() if p.card.arms)
        listed = f"methods that list some: {', '.join(known)}" if known else "no method lists any"
        raise SpecError(
            f"the card of '{card.name}' lists no arms, so there is nothing to ablate",
            hint=f"{listed}; how to list them: docs/methods.md",
            next=f"fer-bench ablate {known[0]} --dataset NAME" if known else "fer-bench list methods",
        )
    names = _names(card, chosen)
    arms = {name: arm for name, arm in card.arms.items() if name in names}
    for name, arm in arms.items():
        _check(plugins, card, name, arm)
    return Ablation(card.name, arms, tuple(name for name in card.arms if name not in names))


def _names(card: MethodCard, chosen: str | None) -> list[str]:
    """The names of the arms that are asked for."""
    if chosen is None:
        return list(card.arms)
    where = f"--arms {abbreviated(chosen)}"
    names = [part.strip() for part in chosen.split(",") if part.strip()]
    for name in names or [chosen]:
        if name not in card.arms:
            raise unknown("arm", name, card.arms, where=where, next=f"fer-bench show {card.name}")
    for name in names:
        other = card.arms[name].to
        if other and other not in names:
            needed = [n for n in card.arms if n in {*names, *_behind(card, names)}]
            raise SpecError(
                f"the arm '{name}' is compared with '{other}', which is left out",
                where=where,
                next=f"the same command with --arms '{','.join(needed)}'",
            )
    return names


def _behind(card: MethodCard, names: list[str]) -> set[str]:
    """All arms with which these are compared, those with which those are compared, and so on."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        other = card.arms[todo.pop()].to
        if other and other not in found:
            found.add(other)
            todo.append(other)
    return found


def _check(plugins: Plugins, card: MethodCard, name: str, arm: Arm) -> None:
    """Raise SpecError, which names the arm, where its method or a value does not exist."""
    variant = parse_variant(arm.variant)
    try:
        plugins.method(variant.method).card.choose(variant.given)
    except FerBenchError as error:
        place = f"the card of '{card.name}', arm '{name}': {arm.variant}"
        hint = f"write {error.what.partition(' is ')[2]} there" if isinstance(error, VariantNameError) else error.hint
        raise SpecError(error.what, where=place, hint=hint, next=f"fer-bench show {variant.method}") from error
