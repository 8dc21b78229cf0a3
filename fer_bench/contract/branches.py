"""Several networks that share their first part, for methods with experts or branches.

timm has no common way to run half a model, so the halves are made here by putting identities in the place of the other
half. That needs to be known of each family of models, in :data:`LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fer_bench.contract.backbones import Trunk
from fer_bench.errors import SpecError


@dataclass(frozen=True)
class Layout:
    """Names of a body's parts in the order in which its ``forward_features`` calls them.

    `stages` names the four stages, or the one sequence that holds all stages or blocks.
    """

    before: tuple[str, ...]
    stages: tuple[str, ...]
    after: tuple[str, ...] = ()

    def fits(self, body: nn.Module) -> bool:
        """Whether a body has all these parts, and no others."""
        names = {*self.before, *self.stages, *self.after}
        rest = {name for name, part in body.named_children() if not isinstance(part, nn.Identity)}
        return all(hasattr(body, name) for name in (*self.before, *self.stages)) and rest <= names | READOUT


READOUT = {"head", "fc", "global_pool", "head_drop", "fc_norm", "attn_pool", "classifier", "pre_logits", "pool"}
LAYOUTS = (
    Layout(("conv1", "bn1", "act1", "maxpool"), ("layer1", "layer2", "layer3", "layer4")),  # ResNets
    Layout(("stem",), ("s1", "s2", "s3", "s4"), ("final_conv",)),  # RegNets
    Layout(("stem",), ("stages",), ("norm_pre",)),  # ConvNeXts
    Layout(("patch_embed", "pos_drop", "patch_drop", "norm_pre"), ("blocks",), ("norm",)),  # vision transformers
    Layout(("conv_stem", "bn1"), ("blocks",), ("conv_head", "bn2")),  # EfficientNets, MobileNets
)


class Branches(nn.Module):
    """`n` trunks with their first stages in common.

    Calling it gives, for each branch, what a :class:`fer_bench.Trunk` gives: ``(fmap, features)``. The shared part
    is run once. `num_features` is D of each.

    Parameters
    ----------
    backbone : callable
        What :meth:`fer_bench.Method.build_model` is given. It is called `n` times, so the branches start from different
        weights; the first one and the shared part start as a plain network of the same seed does.
    n : int
        Number of branches.
    own : int
        How many of the four stages (quarters of the blocks of a vision transformer) each branch has for itself, 1 to 3.

    Raises
    ------
    SpecError
        It isn't known how to divide such a backbone.
    """

    def __init__(self, backbone: Callable[[], Trunk], n: int, *, own: int = 1):
        super().__init__()
        if not 1 <= own <= 3:
            raise SpecError(f"a branch can have 1 to 3 of the four stages for itself, not {own}", where="Branches")
        trunks = [backbone() for _ in range(n)]
        layout = next((known for known in LAYOUTS if known.fits(trunks[0].body)), None)
        if layout is None:
            kind = type(trunks[0].body).__name__
            what = f"a {kind} can't be divided into a shared first part and branches"
            hint = "ResNets, RegNets, ConvNeXts, EfficientNets and vision transformers can, such as resnet18_small"
            raise SpecError(what, where="--backbone", hint=hint, next="fer-bench list backbones 'resnet*'")
        self.num_features = trunks[0].num_features
        self.shared = Trunk(_part(deepcopy(trunks[0].body), layout, own, first=True))
        self.trunks = nn.ModuleList(Trunk(_part(trunk.body, layout, own, first=False)) for trunk in trunks)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map and pooled features of images `x` [B, C, H, W] in each branch."""
        hidden = self.shared.body.forward_features(x)
        return [trunk(hidden) for trunk in self.trunks]


def _part(body: Any, layout: Layout, own: int, *, first: bool) -> nn.Module:
    """One part of a body, in place: all that belongs to the other part does nothing."""
    if len(layout.stages) > 1:
        early = layout.stages[: len(layout.stages) - own]
    else:
        early = ()
        _divide(getattr(body, layout.stages[0]), own, first)
    if first:
        kept = {*layout.before, *early, *layout.stages[: len(layout.stages) == 1]}
        others = {name for name, _ in body.named_children()} - kept
    else:
        others = {*layout.before, *early}
        for name in ("pos_embed", "cls_token", "reg_token", "dist_token"):  # they were added in the first part
            if getattr(body, name, None) is not None:
                setattr(body, name, None)
    for name in others:
        if isinstance(getattr(body, name, None), nn.Module):
            setattr(body, name, nn.Identity())
    return body


def _divide(stages: nn.Sequential | nn.ModuleList, own: int, first: bool) -> None:
    """Keep the first, or the last, of a sequence of stages or blocks; `own` of four quarters are the last ones."""
    cut = len(stages) - max(1, round(len(stages) * own / 4))
    for k in range(len(stages)):
        if (k < cut) != first:
            stages[k] = nn.Identity()
