"""Erasing Attention Consistency: an erased image and its mirror image must be read in the same places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Param, Stage, StreamSpec, Trunk

from ._shared.compose import COMPOSE
from ._shared.consistency import ERASE, erased_unmirrored, mirror_gaps
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.maps import activation_maps, build_cam_classifier

card = MethodCard(
    name="eac",
    title="Erasing Attention Consistency (EAC)",
    paper="Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial Expression Recognition, "
    "ECCV 2022",
    year=2022,
    url="https://arxiv.org/abs/2207.10299",
    family="noisy labels",
    changes="plus λ times the mean squared difference between the class activation maps of an erased image and the "
    "mirrored maps of its mirror image; only the unmirrored image has a classification loss",
    deviations=(
        "agrees with the authors' code (zyh-uaiaaaa/Erasing-Attention-Consistency, commit 61efdfd) on the same maps; "
        "its grid_sample on a mirrored grid is a flip",
        "the mirror image is that of the erased image, as the code does for clean labels; for noisy ones it erases "
        "the mirror image elsewhere",
        "images are shifted, rotated and scaled as the recipe says; the code adds Gaussian noise instead",
        "pretraining (VGGFace2 ResNet-50 or MS-Celeb ResNet-18), 224 pixels, Adam and exponential decay are the "
        "study's recipe; λ was set for those maps, whose scale follows features and weights",
    ),
    params={
        **COMPOSE,
        "weight": Param(
            5.0,
            "λ on the consistency; 5 in paper and code",
            low=0.0,
            high=1000.0,
            space=Float(0.5, 50.0, log=True),
        ),
        **ERASE,
    },
    needs=("feature map",),
)


class EAC(ComposableCrossEntropy, Method):
    """Cross-entropy of the image, consistency of its attention with that of its mirror image."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A plain classifier; SpecError where its head can't read single positions of the map."""
        return build_cam_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, card.name)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Images with erased rectangles, none of them mirrored."""
        augment = erased_unmirrored(self.ctx.recipe, self.params["erase"])
        return {"main": replace(super().streams(stage)["main"], augment=augment)}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch; two forward passes."""
        output, mirrored = model(batch.x), model(batch.x.flip(3))
        maps, mirrored_maps = (activation_maps(o.fmap, model.head) for o in (output, mirrored))
        parts = {"ce": self.batch_loss(output, batch), "consistency": mirror_gaps(maps, mirrored_maps).mean()}
        total = parts["ce"] + self.params["weight"] * parts["consistency"]
        return LossOut(total=total, parts=parts, output=output)
