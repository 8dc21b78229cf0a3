"""Label over-smoothing: a classifier trained on targets that hardly tell the classes apart."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.decoupled import SECOND, SECOND_STAGE, STAGES_DEVIATION, Decoupled
from ._shared.samplers import SAMPLERS

PAPER_DELTA, PAPER_CLASSES = 0.98, 100  # --label_smooth 0.98, the README's command for CIFAR100-LT

card = MethodCard(
    name="los",
    title="Label over-smoothing (LOS)",
    paper="Sun et al., Rethinking Classifier Re-Training in Long-Tailed Recognition: Label Over-Smooth Can Balance, "
    "ICLR 2025",
    year=2025,
    url="https://openreview.net/forum?id=OeKp3AdiVO",
    family="two-stage",
    changes="after the usual training, a fresh classifier on the frozen trunk is trained by cross-entropy on targets "
    "(1 - δ) q + δ/K, in which the true class hardly stands out. Class frequencies are not used",
    deviations=(
        STAGES_DEVIATION,
        "δ is adapted to the number of classes K, so that the odds of the true class against another one stay those of "
        "δ = 0.98 at K = 100, 3.04 to 1: δ = 0.774 at K = 7. Taken over as it is, 0.98 would give odds of 1.14 to 1",
        "known from its abstract and README: the sampler of the second stage (every image once) and the fresh start of "
        "the classifier are a reading",
        "the paper trains its first stage with a stronger decay (weight balancing); here it is the recipe's",
        "with label smoothing in the recipe, its share is spread first",
    ),
    calibration="confidences are low by design: the target of the true class is 0.34 at K = 7",
    also_known={"label_over_smoothing": ""},
    params={
        **SECOND_STAGE,
        "second.sampler": Param(
            "shuffle",
            "how the second stage draws its images (methods/_shared/samplers.py); shuffle: each once, so that no class "
            "frequency is used, which is the paper's point",
            choices=SAMPLERS,
        ),
        "delta": Param(
            "odds",
            "smoothing δ of the second stage; odds: K / (K + 2.04), the odds that the paper's 0.98 gives 100 classes",
            low=0.0,
            high=0.999,
            words=("odds",),
            space=Float(0.5, 0.98),
        ),
    },
)


class Los(Decoupled, Method):
    """Two stages; the second one over-smooths."""

    card = card
    fresh = ("head",)

    @property
    def delta(self) -> float:
        """The smoothing δ of the second stage."""
        given, classes = self.params["delta"], self.ctx.num_classes
        if given != "odds":
            return float(given)
        return classes / (classes + PAPER_CLASSES * (1 - PAPER_DELTA) / PAPER_DELTA)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy, over-smoothed in the second stage; scalar."""
        delta = self.delta if self.moment[0] == SECOND else 0.0
        return F.cross_entropy(output.logits, target, label_smoothing=delta)
