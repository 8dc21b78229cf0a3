"""GLMC: global and local mixtures of two streams that must agree, under a loss that is gradually rebalanced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Classifier, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.cross_entropy import CrossEntropyByImage
from ._shared.losses import inverse_weights, row_of
from ._shared.mixing import beta, blended, cut_to, pasted
from ._shared.samplers import Power

card = MethodCard(
    name="glmc",
    title="Global and Local Mixture Consistency Cumulative Learning (GLMC)",
    paper="Du et al., Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual Recognitions, "
    "CVPR 2023",
    year=2023,
    url="https://arxiv.org/abs/2305.07180",
    family="mixing",
    changes="mixup and CutMix of two views with a stream that favours rare classes; their projections must agree "
    "(negative cosine); two heads, one with plain and one with weighted labels, whose losses are blended by epoch; "
    "the weighted one predicts",
    deviations=(
        "losses and blending agree with ynu-yangpeng/GLMC (2c0261c)",
        "labels of the pasted view are mixed by the area that was pasted; the code takes λ, whose rectangle is cut "
        "off at the border, and rounds its sides up",
        "label smoothing spreads a share of a weighted label evenly; the paper uses none",
        "twice the cost of plain training: two views pass the network",
    ),
    params={
        "alpha": Param(
            1.0,
            "both parameters of the Beta distribution of the share: 1 (uniform), as in the code",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
        "partner.q": Param(
            0.8,
            "partners come from class c with p_c ∝ n_c^q: 0.8, since the code gives each image the weight n_c^-0.2",
            low=-1.0,
            high=1.0,
            space=Float(0.0, 1.0),
        ),
        "weights.power": Param(
            1.0,
            "weights of labels ∝ n_c^-power with mean 1 over classes: 1 in the code's settings",
            low=0.0,
            high=2.0,
            space=Float(0.0, 1.5),
        ),
        "consistency": Param(
            10.0,
            "weight of the negative cosine: 10 in the code",
            low=0.0,
            high=100.0,
            space=Float(1.0, 20.0),
        ),
        "dim": Param(256, "length of the projection: 256 in the code for CIFAR", low=2, high=4096),
    },
)


class TwoHeads(Classifier):
    """A classifier with a second, plain head, a projector and a predictor; `head` is the one that predicts."""

    def __init__(self, trunk: Trunk, num_classes: int, dim: int):
        super().__init__(trunk, num_classes)
        self.plain = nn.Linear(trunk.num_features, num_classes)
        self.project = nn.Linear(trunk.num_features, dim)
        self.guess = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Output:
        """Logits of the weighted head [B, K]; in training also those of the plain one, projection and prediction."""
        output = super().forward(x)
        if self.training:
            assert output.features is not None
            with torch.autocast(x.device.type, enabled=False):
                features = output.features.float()
                z = self.project(features)
                output.extra = {"plain": self.plain(features), "z": z, "p": self.guess(z)}
        return output


class GLMC(CrossEntropyByImage, Method):
    """Two mixtures of every batch."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with two heads and a projector."""
        return TwoHeads(backbone(), self.ctx.num_classes, self.params["dim"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Two views of the natural stream, and two of one that favours rare classes."""
        partners = StreamSpec(sampler=Power(q=self.params["partner.q"]), views=2)
        return {"main": StreamSpec(views=2), "partners": partners}

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Blended losses of both mixtures, and their disagreement."""
        g, classes = self.generator("mix"), self.ctx.num_classes
        share = beta(self.params["alpha"], self.params["alpha"], g)
        own = [batch.with_(views=[view], generator=g) for view in batch.views]
        partners = cut_to(batch.aux["partners"], len(batch.y))
        others = [partners.with_(views=[view]) for view in partners.views]
        mixtures = [blended(own[0], others[0], classes, share, share), pasted(own[1], others[1], classes, share)]
        outputs = [model(mixture.x) for mixture in mixtures]
        pairs = list(zip(outputs, mixtures, strict=True))
        plain = sum(self.batch_loss(Output(logits=output.extra["plain"]), mixture) for output, mixture in pairs)
        weights = row_of(inverse_weights(self.ctx.counts, self.params["weights.power"], "classes"), batch.x)
        weighted = sum(weighted_loss(output.logits, mixture, weights) for output, mixture in pairs)
        one, two = (output.extra for output in outputs)
        agreement = F.cosine_similarity(one["p"], two["z"].detach()) + F.cosine_similarity(two["p"], one["z"].detach())
        blend = 1 - (batch.epoch / self.ctx.epochs) ** 2
        parts = {"plain": plain, "weighted": weighted, "consistency": -agreement.mean()}
        total = blend * plain + (1 - blend) * weighted + self.params["consistency"] * parts["consistency"]
        return LossOut(total=total, parts=parts, output=outputs[0])


def weighted_loss(logits: Tensor, batch: Batch, weights: Tensor) -> Tensor:
    """Mean over images of Σ_c w_c q_c (-log p_c), for targets q before smoothing and class weights w [C].

    With W = Σ_c w_c q_c that is W times the cross-entropy with the target w q / W, which smoothing then flattens.
    """
    shares = batch.soft_target(logits.shape[1]) * weights.float()
    mass = shares.sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    target = batch.with_(soft=shares / mass[:, None]).target
    return (mass * F.cross_entropy(logits.float(), target, reduction="none")).mean()
