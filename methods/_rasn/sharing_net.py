"""The network of RASN: a trunk, attention, sharing, and a linear head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Classifier, Output, SpecError, Trunk

from .._shared.class_means import class_sums
from .._shared.maps import map_shape, shape_of
from .affinity import Sharing
from .attention import STAGES, Attend, attend_every_block, make_gate
from .dealbino import DeAlbino
from .sources import Recall, make_source
from .switches import CONTROLS, MEANS

BEFORE_LAST = ("conv1", "bn1", "act1", "maxpool", *STAGES[:-1])


class SharingClassifier(Classifier):
    """A trunk whose features pass attention and sharing before the head.

    Parameters
    ----------
    trunk, num_classes
        As for :class:`Classifier`; trunk and head are made first, so that a seed gives them the baseline's values.
    shape : (D, h, w)
        Of the trunk's last map.
    level : {"map", "pooled", "arm", "layer3"}
        What is shared: the map, the pooled features as a map [D, 1, 1], the mean de-albino map [1, h', w'], or the map
        before a ResNet's last stage.
    early_shape : (C, H, W) or None
        Of that map, for "layer3".
    dealbino : bool
        Read out through ARM's head instead of the trunk's pooling.
    enlarge : bool
        Let that head stretch maps that are too small for it.
    sharing : callable (C, H, W) -> module, or None
        Makes the sharing module once the shape of the shared features is known.

    `attend`, attention on the last map, is set from outside.
    """

    attend: nn.Module | None

    def __init__(
        self,
        trunk: Trunk,
        num_classes: int,
        shape: tuple[int, int, int],
        *,
        level: str,
        early_shape: tuple[int, int, int] | None = None,
        dealbino: bool,
        enlarge: bool = False,
        sharing: Callable[[tuple[int, int, int]], Sharing] | None,
    ):
        super().__init__(trunk, num_classes)
        self.level, self.attend = level, None
        self.dealbino = DeAlbino(shape, enlarge=enlarge) if dealbino else None
        shared_shape = {"pooled": (trunk.num_features, 1, 1), "layer3": early_shape}.get(level) or shape
        if self.dealbino is not None:
            _, height, width = self.dealbino.out_shape
            self.head = nn.Linear(height * width, num_classes)
            shared_shape = (1, height, width) if level == "arm" else shared_shape
        self.sharing = None if sharing is None else sharing(shared_shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Output:
        """Logits [B, K], features that the head reads, and the last map, of images `x` [B, C, H, W]."""
        fmap, shareable = self.shareable(x)
        shared = shareable if self.sharing is None else self.sharing(shareable, y)
        if self.level in ("pooled", "arm"):
            return self._output(shared.flatten(1), fmap)
        if self.level == "layer3":
            shared = self._attended(self.trunk.body.layer4(shared))
        return self._output(
            self.trunk.pool(shared) if self.dealbino is None else self._arm_map(shared).flatten(1), shared
        )

    def shareable(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map so far, and the features of the sharing level, as a map."""
        if self.level == "layer3":
            fmap = early_map(self.trunk, x)
            return fmap, fmap
        fmap = self._attended(self.trunk.body.forward_features(x))
        if self.level == "pooled":
            return fmap, self.trunk.pool(fmap)[:, :, None, None]
        return fmap, self._arm_map(fmap) if self.level == "arm" else fmap

    def looks(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Maps [B, h, w] of the attention gates, and what each image draws on [B, S] where it recalls, for images `x`.

        A gate that has no positions (SE) has no map. With attention behind every block, that of the last one is taken.
        """
        gates = {"attention": _last_gate(self), "attention on the affinity": getattr(self.sharing, "gate", None)}
        caught: dict[str, Tensor] = {}
        shareable: list[Tensor] = []

        def keep(name: str) -> Callable[..., None]:
            return lambda gate, given, factors: caught.update({name: factors})

        hooks = [gate.register_forward_hook(keep(name)) for name, gate in gates.items() if gate is not None]
        if self.sharing is not None:
            hooks.append(self.sharing.register_forward_pre_hook(lambda sharing, given: shareable.append(given[0])))
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        maps = {name: f.float().mean(1).expand(len(x), -1, -1) for name, f in caught.items() if f[0, 0].numel() > 1}
        source = getattr(self.sharing, "source", None)
        return maps, source.shares(shareable[0].float()) if isinstance(source, Recall) else None

    def _attended(self, fmap: Tensor) -> Tensor:
        return fmap if self.attend is None else self.attend(fmap)

    def _arm_map(self, fmap: Tensor) -> Tensor:
        """Mean over the de-albino maps [B, 1, h', w']."""
        assert self.dealbino is not None
        return self.dealbino(fmap).mean(1, keepdim=True)

    def _output(self, features: Tensor, fmap: Tensor) -> Output:
        return Output(logits=self.classify(features), features=features, fmap=fmap)

    @torch.no_grad()
    def store_train_mean(self, batches: Iterable[Batch]) -> None:
        """Set what "train_set_mean" stores from clean training batches, in evaluation mode.

        That is the mean over images, or over class means where the source is "class_balanced_mean"; or the mean of each
        class, where it is "class_prototypes".
        """
        assert self.sharing is not None
        sums, counts = class_sums(self, batches, self.head.out_features, lambda x: self.shareable(x)[1])
        self.sharing.source.remember(sums, counts)  # type: ignore[operator]


def _last_gate(model: SharingClassifier) -> nn.Module | None:
    """The attention gate nearest to the head, other than that on the affinity."""
    attends = [module for module in model.modules() if isinstance(module, Attend)]
    return attends[-1].gate if attends else None


def early_map(trunk: Trunk, x: Tensor) -> Tensor:
    """The map before the last stage of a ResNet, [B, C, H, W]."""
    for name in BEFORE_LAST:
        x = getattr(trunk.body, name)(x)
    return x


def _early_shape(trunk: Trunk, image_shape: tuple[int, int, int], owner: str) -> tuple[int, int, int]:
    """Shape of :func:`early_map` for an image; SpecError where the trunk is no ResNet."""
    if not all(hasattr(trunk.body, name) for name in (*BEFORE_LAST, STAGES[-1])):
        raise SpecError(
            f"share.level=layer3 needs the stages of a ResNet, not {type(trunk.body).__name__}",
            where=f"method {owner}",
            hint="a ResNet backbone, such as resnet18_small, or share.level=map",
        )
    channels, height, width = shape_of(trunk, image_shape, partial(early_map, trunk))
    return channels, height, width


def check_switches(params: Mapping[str, Any], owner: str) -> None:
    """Whether the switches make sense together.

    Raises
    ------
    SpecError
        They don't; the message says why.
    """
    level, source, evaluate = params["share.level"], params["share.source"], params["eval.affinity"]
    dealbino = params["head"] == "arm_dealbino"
    wrong = None
    if (level, dealbino) in (("arm", False), ("pooled", True)):
        wrong = (
            f"share.level={level} doesn't fit head={params['head']}",
            ("arm needs head=arm_dealbino, pooled needs head=gap, map and layer3 take both"),
        )
    elif evaluate == "test_batch" and source not in (*MEANS, "none"):
        wrong = (
            f"eval.affinity=test_batch takes the mean of the test batch, but share.source={source} shares no mean",
            (f"eval.affinity=frozen_ema, or one of share.source={', '.join(MEANS)}"),
        )
    elif evaluate == "train_set_mean" and source in ("dictionary", *CONTROLS):
        wrong = (
            f"eval.affinity=train_set_mean has no mean to measure: share.source={source} stores none",
            ("eval.affinity=frozen_ema, which leaves the learned weights as they are"),
        )
    elif source == "none" and params["attn.place"] == "on_affinity":
        wrong = (
            "attn.place=on_affinity has no affinity to attend to with share.source=none",
            ("attn.place=after_layer4, or baseline_resnet for a network without both"),
        )
    if wrong:
        raise SpecError(wrong[0], where=f"method {owner}", hint=wrong[1])


def build_sharing_classifier(
    trunk: Trunk, num_classes: int, image_shape: tuple[int, int, int], params: Mapping[str, Any], owner: str = "rasn"
) -> SharingClassifier:
    """The network that RASN's switches describe; `owner` is the method that errors name.

    Raises
    ------
    SpecError
        The switches don't fit the backbone or one another.
    """
    check_switches(params, owner)
    level, place, evaluate = params["share.level"], params["attn.place"], params["eval.affinity"]
    gate = partial(make_gate, params["attn.type"], reduction=params["attn.reduction"])
    shape = map_shape(trunk, image_shape, owner)

    def sharing(shared_shape: tuple[int, int, int]) -> Sharing:
        source = make_source(
            params["share.source"],
            shared_shape,
            num_classes,
            momentum=params["share.momentum"],
            atoms=params["share.atoms"],
            evaluate=evaluate,
        )
        return Sharing(
            source,
            shared_shape[0],
            fusion=params["share.fusion"],
            alpha=params["share.alpha"],
            detach=params["share.detach"],
            share_in_evaluation=evaluate != "none",
            gate=gate(channels=shared_shape[0]) if "on_affinity" in place else None,
        )

    model = SharingClassifier(
        trunk,
        num_classes,
        shape,
        level=level,
        early_shape=_early_shape(trunk, image_shape, owner) if level == "layer3" else None,
        dealbino=params["head"] == "arm_dealbino",
        enlarge=params.get("head.enlarge", False),
        sharing=None if params["share.source"] == "none" else sharing,
    )
    after_last = gate(channels=shape[0]) if "after_layer4" in place else None
    if after_last is not None:
        model.attend = Attend(after_last)
    if place == "every_block":
        attend_every_block(trunk, params["attn.type"], params["attn.reduction"])
    return model
