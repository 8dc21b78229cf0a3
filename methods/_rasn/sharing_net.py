"""The network of RASN: a trunk, attention, sharing, and a linear head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Classifier, Output, SpecError, Trunk

from .._shared.maps import map_shape
from .affinity import Sharing
from .attention import Attend, attend_every_block, make_gate
from .dealbino import DeAlbino


class SharingClassifier(Classifier):
    """A trunk whose features pass attention and sharing before the head.

    Parameters
    ----------
    trunk, num_classes
        As for :class:`Classifier`; trunk and head are made first, so that a seed gives them the baseline's values.
    shape : (D, h, w)
        Of the trunk's last map.
    level : {"map", "pooled", "arm"}
        What is shared: the map, the pooled features as a map [D, 1, 1], or the mean de-albino map [1, h', w'].
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
        dealbino: bool,
        enlarge: bool = False,
        sharing: Callable[[tuple[int, int, int]], Sharing] | None,
    ):
        super().__init__(trunk, num_classes)
        self.level, self.attend = level, None
        self.dealbino = DeAlbino(shape, enlarge=enlarge) if dealbino else None
        shared_shape = (trunk.num_features, 1, 1) if level == "pooled" else shape
        if self.dealbino is not None:
            _, height, width = self.dealbino.out_shape
            self.head = nn.Linear(height * width, num_classes)
            shared_shape = (1, height, width) if level == "arm" else shape
        self.sharing = None if sharing is None else sharing(shared_shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Output:
        """Logits [B, K], features that the head reads, and the last map, of images `x` [B, C, H, W]."""
        fmap, shareable = self.shareable(x)
        shared = shareable if self.sharing is None else self.sharing(shareable, y)
        features = self._read(shared)
        return Output(logits=self.classify(features), features=features, fmap=shared if self.level == "map" else fmap)

    def shareable(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attended map [B, D, h, w] and the features of the sharing level, as a map."""
        fmap = self.trunk.body.forward_features(x)
        fmap = fmap if self.attend is None else self.attend(fmap)
        if self.level == "pooled":
            return fmap, self.trunk.pool(fmap)[:, :, None, None]
        return fmap, self._arm_map(fmap) if self.level == "arm" else fmap

    def _arm_map(self, fmap: Tensor) -> Tensor:
        """Mean over the de-albino maps [B, 1, h', w']."""
        assert self.dealbino is not None
        return self.dealbino(fmap).mean(1, keepdim=True)

    def _read(self, shared: Tensor) -> Tensor:
        """Features [B, ·] of the head."""
        if self.level == "map":
            return self.trunk.pool(shared) if self.dealbino is None else self._arm_map(shared).flatten(1)
        return shared.flatten(1)

    @torch.no_grad()
    def store_train_mean(self, batches: Iterable[Batch]) -> None:
        """Set the affinity of "train_set_mean" from clean training batches, in evaluation mode.

        The mean is over images, or over class means where the source is "class_balanced_mean".
        """
        assert self.sharing is not None
        was_training = self.training
        self.eval()
        sums = torch.zeros(self.head.out_features, *self.sharing.ema.shape[1:], device=self.sharing.ema.device)
        counts = torch.zeros(len(sums), device=sums.device)
        for batch in batches:
            sums.index_add_(0, batch.y, self.shareable(batch.x)[1].float())
            counts += torch.bincount(batch.y, minlength=len(counts))
        self.train(was_training)
        if self.sharing.source == "class_balanced_mean":
            present = counts > 0
            self.sharing.train_mean.copy_((sums[present] / counts[present, None, None, None]).mean(0, keepdim=True))
        else:
            self.sharing.train_mean.copy_(sums.sum(0, keepdim=True) / counts.sum())


def build_sharing_classifier(
    trunk: Trunk, num_classes: int, image_shape: tuple[int, int, int], params: Mapping[str, Any], owner: str = "rasn"
) -> SharingClassifier:
    """The network that RASN's switches describe; `owner` is the method that errors name.

    Raises
    ------
    SpecError
        The switches don't fit the backbone or one another.
    """
    level, dealbino, place = params["share.level"], params["head"] == "arm_dealbino", params["attn.place"]
    if (level, dealbino) in (("arm", False), ("pooled", True)):
        raise SpecError(
            f"share.level={level} doesn't fit head={params['head']}",
            where=f"method {owner}",
            hint="arm needs head=arm_dealbino, pooled needs head=gap, map takes both",
        )
    gate = partial(make_gate, params["attn.type"], reduction=params["attn.reduction"])
    shape = map_shape(trunk, image_shape, owner)

    def sharing(shared_shape: tuple[int, int, int]) -> Sharing:
        return Sharing(
            shared_shape,
            source=params["share.source"],
            fusion=params["share.fusion"],
            alpha=params["share.alpha"],
            detach=params["share.detach"],
            momentum=params["share.momentum"],
            evaluate=params["eval.affinity"],
            gate=gate(channels=shared_shape[0]) if "on_affinity" in place else None,
        )

    model = SharingClassifier(
        trunk,
        num_classes,
        shape,
        level=level,
        dealbino=dealbino,
        enlarge=params.get("head.enlarge", False),
        sharing=None if params["share.source"] == "none" else sharing,
    )
    after_last = gate(channels=shape[0]) if "after_layer4" in place else None
    if after_last is not None:
        model.attend = Attend(after_last)
    if place == "every_block":
        attend_every_block(trunk, params["attn.type"], params["attn.reduction"])
    return model
