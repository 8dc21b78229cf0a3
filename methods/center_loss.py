"""Centre loss: features are pulled to a centre of their class; island loss: the centres are pushed apart as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fer_bench import Batch, Choice, Float, LossOut, Method, MethodCard, Param, Trunk

from ._shared.centers import CentredClassifier, center_steps, island_steps, pairwise_cosines, squared_gaps
from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="center_loss",
    title="Centre loss, and island loss",
    paper="Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016; island loss: "
    "Cai et al., Island Loss for Learning Discriminative Features in Facial Expression Recognition, FG 2018",
    year=2016,
    url="https://doi.org/10.1007/978-3-319-46478-7_31",
    family="loss",
    changes="plus λ/2 times the mean squared distance of features from the centre of their class. The centres follow "
    "the features by a rule of their own. With island > 0 they also turn away from one another (island loss)",
    deviations=(
        "both papers from memory, without code of their authors; the rules agree with ports on GitHub, of which one "
        "of the island loss multiplies by coordinates where the formula has a scalar product",
        "the distance is averaged over the batch, as in the authors' Caffe layer, where the paper writes a sum",
        "soft labels, from votes or mixed images, have their expected distance and share in the centres",
        "the network, its PReLU features, pretraining, image size and optimiser are the study's recipe. λ was set for "
        "such features, and a ResNet's have another scale",
    ),
    params={
        **COMPOSE,
        "weight": Param(
            0.003,
            "λ; 0.003 for faces in Wen et al., 0.01 in Cai et al. [both recalled]",
            low=0.0,
            high=10.0,
            space=Float(0.0003, 0.1, log=True),
        ),
        "center_rate": Param(
            0.5,
            "α: share of its step by which a centre moves at once; 0.5 in both papers [recalled]",
            low=0.0,
            high=1.0,
            space=Choice((0.1, 0.5, 1.0)),
        ),
        "island": Param(
            0.0,
            "λ1 on the sum of the centres' pairwise cosines plus 1; 0 is the centre loss, 10 the island loss of Cai et "
            "al. [recalled]. It acts on features through the centres alone",
            low=0.0,
            high=1000.0,
            space=Choice((0.0, 1.0, 10.0)),
        ),
    },
    also_known={"island_loss": "weight=0.01, island=10"},
)


class CenterLoss(ComposableCrossEntropy, Method):
    """Cross-entropy and distances from moving centres."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A plain classifier with centres."""
        return CentredClassifier(backbone(), self.ctx.num_classes)

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch; no gradient reaches the centres."""
        output = model(batch.x)
        gaps = squared_gaps(output.features, model.centers, batch.soft_target(self.ctx.num_classes))
        parts = {"ce": self.batch_loss(output, batch), "center": gaps.sum(1).mean() / 2}
        if self.params["island"]:
            parts["island"] = pairwise_cosines(model.centers)
        extra = parts["center"] + self.params["island"] * parts.get("island", 0.0)
        return LossOut(total=parts["ce"] + self.params["weight"] * extra, parts=parts, output=output)

    @torch.no_grad()
    def on_step_end(self, model: Any, batch: Batch, loss: LossOut) -> None:
        """Move the centres by the features of this step."""
        assert loss.output is not None
        step = center_steps(model.centers, loss.output.features, batch.soft_target(self.ctx.num_classes))
        if self.params["island"]:
            step += self.params["island"] * island_steps(model.centers)
        model.centers -= self.params["center_rate"] * step
