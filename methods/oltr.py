"""Open long-tailed recognition: features enriched from a memory of class centroids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import (
    Batch,
    Classifier,
    Float,
    Insight,
    LossOut,
    Method,
    MethodCard,
    Output,
    Param,
    Stage,
    TrainView,
    Trunk,
)

from ._shared.class_means import FirstStage, class_means
from ._shared.decoupled import BALANCED, SAMPLER_DEVIATION, SECOND, SECOND_STAGE, Decoupled
from ._shared.groups import scaled_groups
from ._shared.maps import map_shape
from ._shared.memory import Memory, ModulatedAttention, centroid_loss

card = MethodCard(
    name="oltr",
    title="Memory of class centroids with modulated attention (OLTR)",
    paper="Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1904.05160",
    family="architecture",
    changes="after the usual training, the whole network learns on with class-balanced batches: attention on the last "
    "map; features plus what a memory of learned class centroids recalls for them, so that rare classes borrow from "
    "frequent ones, scaled by nearness to the memory; a cosine classifier; and a loss that draws features to centroids",
    deviations=(
        "attention, meta-embedding, classifier and losses agree with the authors' code (zhmiao/"
        "OpenLongTailRecognition-OLTR f50e375); its extra layer behind the pooled features is left out",
        SAMPLER_DEVIATION,
        "the second stage is as long as the first; twice as long in the code for ImageNet-LT (60 and 30 epochs)",
        "one optimiser with the recipe's schedule; the code has one for each part, with steps of its own",
        "centroids start as the means of the unaugmented training images at the end of the first stage; that of a "
        "class without any starts at 0",
        "open-set rejection is not used: there are no unknown classes here",
    ),
    calibration="logits lie within -16 and 16",
    params={
        **SECOND_STAGE,
        **BALANCED,
        "second.epochs": Param(
            1.0,
            "length of the second stage as a share of the recipe's epochs, on top of them",
            low=0.01,
            high=2.0,
        ),
        "second.trunk_lr": Param(
            0.1,
            "factor on the trunk's learning rate in the second stage; 0.01 beside 0.1 in the code",
            low=0.0,
            high=1.0,
            space=Float(0.0, 1.0),
        ),
        "scale": Param(16.0, "scale s of the cosine; 16 in the code", low=1.0, high=100.0),
        "weight": Param(
            0.01,
            "weight of the centroids' loss; 0.01 in the code",
            low=0.0,
            high=10.0,
            space=Float(1e-3, 1.0, log=True),
        ),
    },
    needs=("feature map",),
)


class OltrClassifier(Classifier):
    """A plain classifier, which becomes the hallucinator, with attention and memory beside it."""

    def __init__(self, trunk: Trunk, num_classes: int, shape: tuple[int, int, int], scale: float):
        super().__init__(trunk, num_classes)
        self.attention = ModulatedAttention(shape)
        self.memory = Memory(trunk.num_features, num_classes, scale)

    def remember(self, x: Tensor) -> Output:
        """Output of images `x` [B, C, H, W] by way of the memory."""
        fmap = self.trunk.body.forward_features(x)
        with torch.autocast(x.device.type, enabled=False):
            fmap = self.attention(fmap.float())
            features = self.trunk.pool(fmap)
            return Output(logits=self.memory(features, self.head(features)), features=features, fmap=fmap)


class Oltr(FirstStage, Decoupled, Method):
    """Two stages; in the second everything learns."""

    card = card
    frozen = ()
    waits = ("attention", "memory")
    remembers = False
    means: Tensor | None = None

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with attention and memory."""
        trunk = backbone()
        shape = map_shape(trunk, self.ctx.image_shape, self.card.name)
        return OltrClassifier(trunk, self.ctx.num_classes, shape, self.params["scale"])

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Class means [C, D] of the training fold at the end of the first stage."""
        if self.ends:
            self.means = class_means(model, batches(), self.ctx.counts, attrgetter("features"))

    def on_stage_start(self, stage: Stage, model: nn.Module, view: TrainView) -> None:
        """The memory starts from the class means."""
        self.remembers = stage.name == SECOND
        if self.remembers and self.means is not None:
            with torch.no_grad():
                model.get_parameter("memory.centroids").copy_(self.means)

    def param_groups(self, model: nn.Module, stage: Stage) -> list[dict] | None:
        """The trunk learns more slowly in the second stage; biases, norms and centroids do not decay."""
        if stage.name != SECOND:
            return None
        scales, decay = {"trunk": self.params["second.trunk_lr"]}, self.ctx.recipe.get("weight_decay", 0.0)
        return scaled_groups(model, scales, decay, spared=("memory.centroids",))

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Cross-entropy, with the centroids' loss in the second stage."""
        if not self.remembers:
            return Method.training_step(self, model, batch)
        network: Any = model
        output = network.remember(batch.x)
        usual, drawn = self.batch_loss(output, batch), centroid_loss(output.features, batch.y, network.memory.centroids)
        return LossOut(
            total=usual + self.params["weight"] * drawn, parts={"ce": usual, "centroids": drawn}, output=output
        )  # fmt: skip

    def predict(self, model: nn.Module, x: Tensor) -> Output:
        """By way of the memory, once there is one."""
        network: Any = model
        return network.remember(x) if self.remembers else network(x)

    def insight(self, model: nn.Module, x: Tensor) -> Insight:
        """Where the attention looks, and the classes whose centroids an image recalls; nothing in the first stage."""
        network: Any = model
        if not self.remembers:
            return Insight()
        fmap = network.trunk.body.forward_features(x).float()
        features = network.trunk.pool(network.attention(fmap))
        return Insight(
            maps={"attention": network.attention.weight(fmap)},
            shares=network.head(features.float()).float().softmax(1),
            sources=tuple(self.ctx.classes),
        )

    def state_dict(self) -> dict[str, Any]:
        """Whether the memory is in use, and the class means that it starts from."""
        return {"remembers": self.remembers, "means": self.means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.remembers, self.means = state["remembers"], state["means"]
