"""Co-teaching: two networks, and each learns from the images that the other finds easy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fer_bench import Batch, Choice, LossOut, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.experts import Networks, answer

card = MethodCard(
    name="co_teaching",
    title="Co-teaching",
    paper="Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018",
    year=2018,
    url="https://arxiv.org/abs/1804.06872",
    family="noisy labels",
    changes="two networks; of each batch, each one learns from the images with the smallest loss in the other, all at "
    "first, then ever fewer, down to a share 1 - τ",
    deviations=(
        "the first network predicts; the paper reports both",
        "τ = 0.2 is a guess: the paper sets it to the share of wrong labels, which is not known here",
        "the loss is the mean over the chosen images; the authors' code divides that mean by their number once more, "
        "which Adam undoes and SGD does not",
        "weights of classes count in the loss and not in the choice. Rare classes have large losses and are chosen "
        "less often: on imbalanced data the method works against them",
        "both networks share one optimiser and the recipe's largest gradient norm; network and schedule are the "
        "recipe's, where the paper has a 9-layer CNN and 200 epochs of Adam",
    ),
    params={
        **COMPOSE,
        "forget": Param(
            0.2,
            "τ: share of a batch that is left out in the end; the share of wrong labels, if it is known. 0: two "
            "networks that learn apart",
            low=0.0,
            high=0.9,
            space=Choice((0.1, 0.2, 0.3)),
        ),
        "ramp": Param(
            0.05,
            "share of the epochs over which the share left out rises from 0 to τ; 10 of 200 in the paper",
            low=0.0,
            high=1.0,
            space=Choice((0.05, 0.2)),
        ),
    },
)


class Pair(nn.Module):
    """Two classifiers side by side; in evaluation the first one alone."""

    def __init__(self, backbone: Callable[[], Trunk], num_classes: int):
        super().__init__()
        self.networks = Networks(backbone, 2)
        self.heads = nn.ModuleList(nn.Linear(self.networks.num_features, num_classes) for _ in range(2))

    def forward(self, x: Tensor) -> Output:
        """Logits, features and map of the first network; in training ``extra["other"]``, logits of the second."""
        fmap, features = self.networks.trunks[0](x)
        extra = {"other": answer(self.heads[1], self.networks.trunks[1](x)[1])} if self.training else {}
        return Output(logits=answer(self.heads[0], features), features=features, fmap=fmap, extra=extra)


class CoTeaching(ComposableCrossEntropy, Method):
    """Cross-entropy of each network on the images that its peer has chosen."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """Two networks from different weights; the first starts as a plain network of the same seed does."""
        return Pair(backbone, self.ctx.num_classes)

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The sum of both networks' losses, each over the images chosen by the other."""
        output = model(batch.x)
        losses = [self.criterion(o, batch.target) for o in (output, Output(logits=output.extra["other"]))]
        size = kept(len(batch.y), self._forgotten(batch.epoch))
        chosen = [loss.detach().argsort(stable=True)[:size] for loss in losses]
        weights = self.image_weights(batch)
        losses = losses if weights is None else [loss * weights for loss in losses]
        first, second = losses[0][chosen[1]].mean(), losses[1][chosen[0]].mean()
        return LossOut(total=first + second, parts={"first": first, "second": second}, output=output)

    def _forgotten(self, epoch: int) -> float:
        """Share left out in an epoch, counted from 0: it rises in a line from 0 in the first one."""
        ramp = self.params["ramp"] * self.ctx.epochs
        return self.params["forget"] * (min(1.0, epoch / ramp) if ramp else 1.0)


def kept(images: int, forgotten: float) -> int:
    """How many images of a batch are learned from: ⌊(1 - share left out) B⌋, one at least."""
    return max(1, int((1 - forgotten) * images + 1e-6))
