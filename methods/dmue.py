"""DMUE: branches that must not know a class say what its images look like to them, and pairs say how sure to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Branches, Float, LossOut, Method, MethodCard, Output, Param, Trunk

from ._dmue.losses import auxiliary_loss, gram_loss, latent_targets, ramps, similarities, soft_loss
from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.experts import answer
from ._shared.layers import BatchNorm

card = MethodCard(
    name="dmue",
    title="Latent distribution mining and pairwise uncertainty (DMUE)",
    paper="She et al., Dive into Ambiguity: Latent Distribution Mining and Pairwise Uncertainty Estimation for Facial "
    "Expression Recognition, CVPR 2021",
    year=2021,
    url="https://arxiv.org/abs/2104.00232",
    family="noisy labels",
    changes="beside the target branch, one branch for each class learns to tell the others apart; what it makes of "
    "images of its class is a soft target for the target branch, whose logits are scaled by a certainty that is read "
    "from similarities within the batch. One branch predicts",
    deviations=(
        "losses, certainty and schedule agree with the authors' code (JDAI-CV/FaceX-Zoo, addition_module/DMUE, commit "
        "d3dac64), whose Gram matrices are of auxiliary logits and of target features, where the paper compares "
        "features",
        "each branch is run once, over the whole batch. The code runs it over the other classes for its loss, and over "
        "its own for the soft targets, so that its BatchNorm sees classes apart",
        "dropout stands behind the neck's BatchNorm, where soft targets have none of it; in the code it stands before",
        "the code skips batches with fewer than two images of a class; here a class that is absent counts as the least "
        "similar one",
        "votes count as their most frequent label, but in the target branch's cross-entropy; images are not mixed",
        "factors and temperature are the code's for AffectNet; its classifiers' learning rate, ten times the rest, MS-"
        "Celeb weights, 224 pixels and optimiser are the study's recipe",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "soft": Param(
            0.5, "factor ω on the soft targets' loss; 0.5 in the code", low=0.0, high=1000.0, space=Float(0.1, 10.0)
        ),
        "similarity": Param(
            1000.0,
            "factor γ on the difference of Gram matrices; 1000 in the code",
            low=0.0,
            high=1e6,
            space=Float(10.0, 1000.0, log=True),
        ),
        "temperature": Param(
            1.2, "T that sharpens soft targets, p^(1/T); 1.2 in the code", low=0.1, high=10.0, space=Float(0.5, 2.0)
        ),
        "ramp": Param(
            0.25,
            "share of the epochs until the target branch has its full weight, and the others begin to lose theirs; "
            "0.25 are the 9 of 36 epochs of the code for RAF-DB",
            low=0.001,
            high=1.0,
        ),
        "dropout": Param(0.5, "dropout before the classifiers; 0.5 in the code", low=0.0, high=0.9),
    },
    needs=("stages",),
)


class AmbiguityNet(nn.Module):
    """A target branch and one for each class, with a common neck, classifiers of their own, and a certainty."""

    def __init__(self, backbone: Callable[[], Trunk], num_classes: int, dropout: float):
        super().__init__()
        self.branches = Branches(backbone, 1 + num_classes, own=1)  # the first is the target branch
        width = self.branches.num_features
        self.neck = BatchNorm(width)
        self.neck.bias.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes, bias=False)
        self.others = nn.ModuleList(nn.Linear(width, num_classes - 1, bias=False) for _ in range(num_classes))
        for head in (self.head, *self.others):
            nn.init.normal_(head.weight, std=0.001)
        self.certainty = nn.Sequential(nn.Linear(2 * num_classes, num_classes), nn.PReLU(), nn.Linear(num_classes, 1))

    def forward(self, x: Tensor) -> Output:
        """Logits of the target branch; in training also what the losses compare.

        ``extra`` has "pooled" [B, D] and "necked" [B, D] features of the target branch, and by class the auxiliary
        logits without and with dropout, "latent" and "auxiliary", [B, C, C - 1] each.
        """
        if not self.training:
            fmap, pooled = self.branches.trunks[0](self.branches.shared.body.forward_features(x))
            return Output(logits=answer(self.head, answer(self.neck, pooled)), features=pooled, fmap=fmap)
        (fmap, pooled), *rest = self.branches(x)
        necked = answer(self.neck, pooled)
        hidden = [answer(self.neck, f) for _, f in rest]
        extra = {
            "pooled": pooled.float(),
            "necked": necked,
            "latent": torch.stack([answer(h, f.detach()) for h, f in zip(self.others, hidden, strict=True)], 1),
            "auxiliary": torch.stack([answer(h, self.dropout(f)) for h, f in zip(self.others, hidden, strict=True)], 1),
        }
        return Output(logits=answer(self.head, self.dropout(necked)), features=pooled, fmap=fmap, extra=extra)


class DMUE(ComposableCrossEntropy, Method):
    """Auxiliary cross-entropies first, then the target branch with soft targets, certainty and similarities."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; SpecError for a backbone that can't be divided."""
        return AmbiguityNet(backbone, self.ctx.num_classes, self.params["dropout"])

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch."""
        output, y = model(batch.x), batch.y
        extra, one_hot = output.extra, F.one_hot(batch.y, self.ctx.num_classes).float()
        sure = torch.sigmoid(answer(model.certainty, torch.cat([similarities(extra["pooled"], one_hot), one_hot], 1)))
        parts = {
            "ce": self.batch_loss(Output(logits=output.logits.float() * sure), batch),
            "auxiliary": auxiliary_loss(extra["auxiliary"], y),
            "soft": soft_loss(output.logits, latent_targets(extra["latent"], y, self.params["temperature"]), one_hot),
            "similarity": gram_loss(extra["auxiliary"], extra["necked"], y),
        }
        up, down = ramps(batch.epoch, self.params["ramp"] * self.ctx.epochs)
        target = parts["ce"] + self.params["soft"] * parts["soft"] + self.params["similarity"] * parts["similarity"]
        return LossOut(total=up * target + down * parts["auxiliary"], parts=parts, output=output)
