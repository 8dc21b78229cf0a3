"""Feature space augmentation: rare maps completed by what frequent ones show beside their class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import (
    Batch,
    Float,
    LossOut,
    Method,
    MethodCard,
    Output,
    Param,
    Stage,
    StreamSpec,
    Trunk,
)

from ._shared.class_means import FirstStage, class_means
from ._shared.decoupled import SECOND, SECOND_STAGE, STAGES_DEVIATION, Decoupled
from ._shared.fusion import Rare, fused, most_confused
from ._shared.maps import build_cam_classifier
from ._shared.rare_features import largest_classes
from ._shared.samplers import BalancedCapped

card = MethodCard(
    name="feature_space_augmentation",
    title="Feature space augmentation",
    paper="Chu et al., Feature Space Augmentation for Long-Tailed Data, ECCV 2020",
    year=2020,
    url="https://arxiv.org/abs/2008.03673",
    family="generative",
    changes="after the usual training, the classifier learns on with a frozen trunk. Rare images are joined by new "
    "maps: what is specific to their class in their own map (by class activation maps), mixed position by position "
    "with what is generic in maps of the classes that are most confused with it",
    deviations=(
        STAGES_DEVIATION,
        "there is no public code of the authors; thresholds, numbers and the random mask follow the unofficial one "
        "(SSRSGJYD/Feature-Space-Augmentation-for-Long-Tailed-Data 941b484), also that the classifier alone learns on",
        "class activation maps in place of Grad-CAM, which equals them for a linear classifier behind pooling",
        "donors come from a class-balanced stream, so a rare image gets fewer new maps if none of its batch is fit",
        "frequent are 0.7 of the classes, the largest, as for CIFAR10-LT there: 4 of 7",
        "images are augmented in both stages",
    ),
    params={
        **SECOND_STAGE,
        "second.lr": Param(
            0.01, "factor on the recipe's learning rate in the second stage; 0.001 beside 0.1 in that code", low=1e-4,
            high=10.0, space=Float(0.01, 1.0, log=True),
        ),
        "heads": Param(0.7, "share of the classes, the largest, that count as frequent", low=0.0, high=1.0),
        "new": Param(3, "new maps for each rare image in a batch", low=1, high=20),
        "confusing": Param(3, "classes that new maps take generic features from", low=1, high=20),
        "specific": Param(
            0.8, "activation, from 0 to 1 over the map, above which a position is specific to the class", low=0.0,
            high=1.0, space=Float(0.4, 0.9),
        ),
        "generic": Param(
            0.2, "activation below which a position is generic", low=0.0, high=1.0, space=Float(0.1, 0.6)
        ),
    },
    needs=("feature map",),
)  # fmt: skip


class FeatureSpaceAugmentation(FirstStage, Decoupled, Method):
    """Two stages; the second learns from images and new maps."""

    card = card
    scores: Tensor | None = None

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A plain classifier whose head can read single positions of its map."""
        return build_cam_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, self.card.name)

    def frequent(self) -> tuple[int, ...]:
        """The largest classes, at least one and not all."""
        return tuple(largest_classes(self.ctx.counts, self.params["heads"]).tolist())

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """As many rare images and new maps as frequent images in the second stage, and donors beside them."""
        if stage.name != SECOND:
            return {"main": StreamSpec()}
        rare = Rare(frequent=self.frequent(), share=1 / (2 + self.params["new"]))
        return {"main": StreamSpec(sampler=rare), "donors": StreamSpec(sampler=BalancedCapped())}

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Mean probabilities [C of the label, C] of the training images at the end of the first stage."""
        if self.ends:
            self.scores = class_means(model, batches(), self.ctx.counts, lambda out: out.logits.float().softmax(1))

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Cross-entropy; in the second stage of images and new maps."""
        if self.moment[0] != SECOND:
            return Method.training_step(self, model, batch)
        network: Any = model
        donors = batch.aux["donors"]
        with torch.no_grad():
            fmap, own = network.trunk(batch.x)
            takers, givers = self.pairs(batch.y, donors.y)
            features = own.float()
            if len(takers):
                mine = (fmap[takers], batch.y[takers])
                theirs = (network.trunk.body.forward_features(donors.x)[givers], donors.y[givers])
                limits = (self.params["specific"], self.params["generic"])
                new = fused(mine, theirs, network.head, limits, self.generator("mask"))
                features = torch.cat([features, network.trunk.pool(new).float()])
        soft = None if batch.soft is None else torch.cat([batch.soft, batch.soft[takers]])
        logits = network.classify(features)
        total = self.batch_loss(Output(logits=logits), batch.with_(y=torch.cat([batch.y, batch.y[takers]]), soft=soft))
        return LossOut(total=total, output=Output(logits=logits[: len(batch.y)]))

    def pairs(self, y: Tensor, donors: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of rare images, and of the donors of their new maps; a rare image that no donor fits has none."""
        assert self.scores is not None, "the first stage comes first"
        fit = most_confused(self.scores, self.params["confusing"]).to(y.device)[y][:, donors]
        rare = ~torch.isin(y, torch.as_tensor(self.frequent(), device=y.device))
        takers = (rare & fit.any(1)).nonzero()[:, 0].repeat_interleave(self.params["new"])
        if not len(takers):
            return takers, takers
        picks = torch.multinomial(fit[takers].float().cpu(), 1, generator=self.generator("donors"))
        return takers, picks[:, 0].to(y.device)

    def state_dict(self) -> dict[str, Any]:
        """The mean probabilities."""
        return {"scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.scores = state["scores"]
