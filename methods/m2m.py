"""Major-to-minor translation: frequent images, changed until a second network takes them for rare ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import (
    Batch,
    Classifier,
    Float,
    LossOut,
    Method,
    MethodCard,
    Param,
    Stage,
    StreamSpec,
    Trunk,
    constant,
    evaluation_mode,
    shuffle,
)

from ._shared.samplers import BalancedCapped

PIXELS = 4.0  # an image's pixels, from 0 to 1 in the paper, lie from -2 to 2 in a batch

card = MethodCard(
    name="m2m",
    title="Major-to-minor translation (M2m)",
    paper="Kim et al., M2m: Imbalanced Classification via Major-to-minor Translation, CVPR 2020",
    year=2020,
    url="https://arxiv.org/abs/2004.00431",
    family="generative",
    changes="a first network g is trained as usual. In the last epochs of the second one's training, batches are "
    "class-balanced, and images of rare classes are replaced by frequent ones that gradient steps have changed until g "
    "gives them the rare class, and the network being trained no longer their own",
    deviations=(
        "plain cross-entropy; the paper's best results are with LDAM",
        "balanced batches hold the same number of each class, rather than in expectation",
        "the noise that a translation starts from has a length of at most 0.5 in each image; the authors' code "
        "(alinlab/M2m 42d08a5, utils.py) bounds its length over the whole batch",
        "pixels lie between -2 and 2 here; lengths of the paper are multiplied by 4",
        "with votes as targets, a translated image gets the votes of the image whose place it takes",
    ),
    params={
        "from": Param(
            0.8, "share of the epochs after which batches are balanced and translated; 160 of 200 in the code", low=0.0,
            high=1.0, space=Float(0.0, 0.9),
        ),
        "beta": Param(
            0.999, "β: an image is translated into a class with m fewer images with probability 1 - β^m; the code's",
            low=0.0, high=0.99999,
        ),
        "lam": Param(
            0.5, "λ, weight of the logit of the image's own class in the network being trained; the code's", low=0.0,
            high=10.0, space=Float(0.01, 1.0, log=True),
        ),
        "gamma": Param(
            0.99, "γ: translations to which g gives the rare class a smaller probability are thrown away; the code's",
            low=0.0, high=1.0, space=Float(0.5, 0.99),
        ),
        "steps": Param(10, "gradient steps of a translation; the code's", low=1, high=50),
        "step": Param(0.1, "length of a step, for pixels from 0 to 1; the code's", low=0.0, high=10.0),
    },
)  # fmt: skip


class M2m(Method):
    """Two networks, one after the other; predictions come from the second."""

    card = card
    translating = False

    def stages(self) -> list[Stage]:
        """g, then the network itself."""
        return [Stage(name="source", freeze=("trunk", "head")), Stage(freeze=("source",))]

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier, with g beside it."""
        model = Classifier(backbone(), self.ctx.num_classes)
        model.source = Classifier(backbone(), self.ctx.num_classes)
        return model

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Epochs are counted over both stages, of which the first has as many as the recipe."""
        self.translating = epoch >= self.ctx.epochs + self.ctx.epoch_after(self.params["from"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Balanced once translation starts."""
        return {"main": StreamSpec(sampler=BalancedCapped() if self.translating else shuffle)}

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Cross-entropy of g, or of the network on a batch that is in part translated."""
        network: Any = model
        if self.moment[0] == "source":
            output = network.source(batch.x)
            return LossOut(total=self.batch_loss(output, batch), output=output)
        output = model(self.translated(network, batch) if self.translating else batch.x)
        return LossOut(total=self.batch_loss(output, batch), output=output)

    def translated(self, network: Any, batch: Batch) -> Tensor:
        """The batch's images [B, C, H, W], some of them replaced by translations into their class."""
        draw, y = self.generator("m2m"), batch.y
        counts = constant(self.ctx.counts, y.device)
        wanted = torch.rand(len(y), generator=draw).to(y.device) >= counts[y] / counts.max()
        accept = 1 - self.params["beta"] ** (counts[y][None, :] - counts[y][:, None]).clamp_min(0)  # [place, seed]
        places = (wanted & (accept.sum(1) > 0)).nonzero()[:, 0]
        if not len(places):
            return batch.x
        seeds = torch.multinomial(accept[places].cpu(), 1, generator=draw)[:, 0].to(y.device)
        noise = torch.rand(len(places), *batch.x.shape[1:], generator=draw).to(batch.x) - 0.5
        luck = torch.rand(len(places), generator=draw).to(y.device) < accept[places, seeds]
        start = batch.x[seeds] + PIXELS * noise.renorm(2, 0, 0.5)
        made = self.translate(network, start, y[seeds], y[places])
        with torch.no_grad(), evaluation_mode(network):
            sure = network.source(made).logits.float().softmax(1).gather(1, y[places, None])[:, 0]
        kept = luck & (sure >= self.params["gamma"])
        return batch.x.index_copy(0, places[kept], made[kept].to(batch.x.dtype))

    def translate(self, network: Any, x: Tensor, own: Tensor, rare: Tensor) -> Tensor:
        """Images [n, C, H, W] after gradient steps of equal length down CE(g(x), rare) + λ f_own(x) (eq. 4)."""
        with evaluation_mode(network):
            for _ in range(self.params["steps"]):
                x = x.detach().clamp(-PIXELS / 2, PIXELS / 2).requires_grad_(True)
                goal = F.cross_entropy(network.source(x).logits.float(), rare)
                goal = goal + self.params["lam"] * network(x).logits.float().gather(1, own[:, None]).mean()
                (slope,) = torch.autograd.grad(goal, x)
                length = slope.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
                x = x - PIXELS * self.params["step"] * slope / length
        return x.detach().clamp(-PIXELS / 2, PIXELS / 2)
