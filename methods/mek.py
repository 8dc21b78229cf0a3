"""Mine Extra Knowledge: attention consistency that counts more for rare classes, and re-balanced smooth labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.compose import COMPOSE, Composable
from ._shared.consistency import ERASE, erased_unmirrored, mirror_gaps
from ._shared.losses import row_of, soft_targets
from ._shared.maps import activation_maps, build_cam_classifier

card = MethodCard(
    name="mek",
    title="Mine Extra Knowledge (MEK): re-balanced attention consistency and smooth labels",
    paper="Zhang et al., Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial Expression Recognition, "
    "NeurIPS 2023",
    year=2023,
    url="https://arxiv.org/abs/2310.19636",
    family="reweighting",
    changes="EAC's attention consistency summed over classes with weights N/(10 n_c), and a label that gives ε to the "
    "other classes in proportion to the same weights (RSL). weight=0 is RSL alone, without second view and erasing",
    deviations=(
        "agrees with the authors' code (zyh-uaiaaaa/Mine-Extra-Knowledge, commit 2ec823d), which holds RAF-DB's "
        "weights as constants; here they are counted on the training fold",
        "λ = 2 and ε = 0.1 are the paper's for a ResNet-18, as a replication reports them; the released Swin-T has "
        "0.1 and 0.3",
        "a class without training images has weight 0; one that is alone with images gets no smoothing",
        "soft labels are smoothed class by class: the share of class c becomes that share of the row of class c. The "
        "recipe's own label smoothing would come on top",
        "pretraining on faces (MS-Celeb ResNet-18, or Swin-T), 224 or 112 pixels, optimiser, RandAugment and the "
        "strength of erasing (0.25 in the Swin code) are the study's recipe or `erase`",
    ),
    calibration="smooth labels hold back ε of every label by design, most of it for the rarest classes",
    params={
        **COMPOSE,
        "weight": Param(
            2.0,
            "λ on the consistency; 2 in the paper's ResNet-18 runs, 0.1 in the released Swin-T code, 0: none",
            low=0.0,
            high=1000.0,
            space=Float(0.02, 20.0, log=True),
        ),
        "smoothing": Param(
            0.1,
            "share ε of a label that the other classes get; 0.1 in the paper's ResNet-18 runs, 0.3 in the Swin-T code",
            low=0.0,
            high=0.9,
            space=Float(0.0, 0.4),
        ),
        **ERASE,
    },
    also_known={"rsl": "weight=0"},
    needs=("feature map",),
)


class MEK(Composable, Method):
    """Cross-entropy with re-balanced smooth labels, and re-balanced attention consistency."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A plain classifier; SpecError where its head can't read single positions of the map."""
        return build_cam_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, card.name)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Images with erased rectangles, none of them mirrored; the recipe's where there is no consistency."""
        main = super().streams(stage)["main"]
        if not self.params["weight"]:
            return {"main": main}
        return {"main": replace(main, augment=erased_unmirrored(self.ctx.recipe, self.params["erase"]))}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch; two forward passes where there is consistency."""
        output = model(batch.x)
        ce = self.batch_loss(output, batch)
        if not self.params["weight"]:
            return LossOut(total=ce, output=output)
        mirrored = model(batch.x.flip(3))
        gaps = mirror_gaps(activation_maps(output.fmap, model.head), activation_maps(mirrored.fmap, model.head))
        weights = row_of(rebalance_weights(self.ctx.counts), gaps)
        parts = {"ce": ce, "consistency": (gaps * weights).sum(1).mean()}
        total = ce + self.params["weight"] * parts["consistency"]
        return LossOut(total=total, parts=parts, output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy with the smooth label of each image [B]."""
        rows = row_of(smooth_labels(self.ctx.counts, self.params["smoothing"]), target)
        with torch.autocast(target.device.type, enabled=False):  # so that targets sum to 1
            smooth = soft_targets(target, self.ctx.num_classes) @ rows
        return F.cross_entropy(output.logits.float(), smooth, reduction="none")


def rebalance_weights(counts: np.ndarray) -> np.ndarray:
    """w_c = N / (10 n_c), float64 [C]; 0 for a class without images. The 10 makes them the code's on RAF-DB."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.where(counts > 0, counts.sum() / (10.0 * np.maximum(counts, 1.0)), 0.0)


def smooth_labels(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Targets [C, C], one row a label y: 1 - ε for y, and ε w_c / Σ_{k≠y} w_k for every other class c."""
    others = np.tile(rebalance_weights(counts), (len(counts), 1))
    np.fill_diagonal(others, 0.0)
    sums = others.sum(1, keepdims=True)
    given = np.where(sums > 0, smoothing, 0.0)
    return given * others / np.where(sums > 0, sums, 1.0) + np.diag(1.0 - given[:, 0])
