"""Ada-DF: an auxiliary branch learns what the classes look like to it, and a target branch learns from that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, TrainView, Trunk, evaluation_mode

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.distributions import DualBranchClassifier, divergences, factors, fused, with_floor
from ._shared.importance import rank_regularisation

card = MethodCard(
    name="ada_df",
    title="Adaptive Distribution Fusion (Ada-DF)",
    paper="Liu et al., A Dual-Branch Adaptive Distribution Fusion Framework for Real-World Facial Expression "
    "Recognition, ICASSP 2023",
    year=2023,
    url="https://github.com/taylor-xy0827/Ada-DF",
    family="noisy labels",
    changes="branch 1 learns the labels; branch 2, which predicts, learns a mixture of branch 1's probabilities and "
    "the mean probabilities of the label's class, mixed by an attention that rank regularisation spreads",
    deviations=(
        "losses, schedule and mixing agree with the authors' code (taylor-xy0827/Ada-DF, commit 1f033a5); as there, "
        "the divergence gives its gradient to branch 1 and to the attention too",
        "a class whose mean probability of itself is below the threshold has threshold and (1 - threshold)/(C - 1); "
        "the code spreads 0.4 over the others whatever the threshold, so that its row can sum to 1.1",
        "mean probabilities are measured on unaugmented training images after each epoch, by the weights that are "
        "evaluated; the code measures them on augmented ones",
        "the shared part learns, unless freeze_shared: the code freezes the stem and first stage of an MS-Celeb "
        "ResNet-18. The branches start from different weights, where the code copies one",
        "where all attentions of a batch are equal, they count as the lowest; the code divides by zero",
        "224 pixels, Adam, exponential decay and AutoAugment are the study's recipe",
    ),
    calibration="branch 2 learns from distributions that give the label 0.7 at first, so its confidences are lower by "
    "design; and both branches' logits are multiplied by an importance below 1",
    params={
        **COMPOSE,
        "threshold": Param(
            0.7,
            "mean probability of itself that a class must reach for its distribution to be used; 0.7 in the code",
            low=0.1,
            high=1.0,
            space=Float(0.5, 0.9),
        ),
        "beta": Param(
            3.0,
            "epoch β at which the divergence's factor reaches 1 and that of cross-entropy begins to fall; 3 of 75",
            low=0.1,
            high=1000.0,
            space=Float(1.0, 10.0),
        ),
        "least": Param(0.2, "lowest attention after rescaling; 0.2 in the code", low=0.0, high=1.0),
        "high_share": Param(0.7, "share of a batch that forms the high group; 0.7 in the code", low=0.05, high=0.95),
        "margin": Param(0.07, "margin between the groups' mean attentions; 0.07 in the code", low=0.0, high=1.0),
        "freeze_shared": Param(False, "keep the shared part as it starts; only sensible with pretrained weights"),
    },
    needs=("stages",),
)


class AdaDF(ComposableCrossEntropy, Method):
    """Cross-entropy of branch 1, divergence of branch 2 from the fused targets, rank regularisation."""

    card = card
    distributions: Tensor | None = None
    """Distribution of each class, float32 [C, C], one row a class; measured after each epoch."""

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; SpecError for a backbone that can't be divided."""
        return DualBranchClassifier(backbone, self.ctx.num_classes)

    def stages(self) -> list[Stage]:
        """One stage, with or without the shared part."""
        return [Stage(freeze=("branches.shared",) if self.params["freeze_shared"] else ())]

    def on_fit_start(self, model: nn.Module, view: TrainView) -> None:
        """Before anything is measured, each class has the threshold itself."""
        classes, device = self.ctx.num_classes, self.ctx.device
        self.distributions = with_floor(torch.zeros(classes, classes, device=device), self.params["threshold"])

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch."""
        output = model(batch.x)
        auxiliary, attention = output.extra["auxiliary"], output.extra["attention"]
        target = fused(auxiliary.softmax(1), self.of_classes(batch), attention, self.params["least"])
        parts = {
            "ce": self.batch_loss(Output(logits=auxiliary), batch),
            "divergence": self.weighted_mean(divergences(target, output.logits.float()), batch),
            "rank": rank_regularisation(attention, self.params["high_share"], self.params["margin"]),
        }
        of_divergence, of_ce = factors(batch.epoch + 1, self.params["beta"])
        total = of_ce * parts["ce"] + of_divergence * parts["divergence"] + parts["rank"]
        return LossOut(total=total, parts=parts, output=output)

    def of_classes(self, batch: Batch) -> Tensor:
        """The distribution of each image's class, float32 [B, C]; for soft labels the expected one."""
        assert self.distributions is not None
        with torch.autocast(batch.y.device.type, enabled=False):
            return batch.soft_target(self.ctx.num_classes) @ self.distributions

    @torch.no_grad()
    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the mean probabilities that branch 1 gives to the images of each class."""
        sums = torch.zeros(self.ctx.num_classes, self.ctx.num_classes, device=self.ctx.device)
        counts = torch.zeros(self.ctx.num_classes, 1, device=self.ctx.device)
        with evaluation_mode(model):
            for batch in batches():
                members = nn.functional.one_hot(batch.y, self.ctx.num_classes).float().T
                sums += members @ model(batch.x).extra["auxiliary"].float().softmax(1)
                counts += members.sum(1, keepdim=True)
        self.distributions = with_floor(sums / counts.clamp_min(1), self.params["threshold"])

    def state_dict(self) -> dict[str, Any]:
        """The distributions of the classes."""
        return {"distributions": self.distributions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.distributions = state["distributions"]
