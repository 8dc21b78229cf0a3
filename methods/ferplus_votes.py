"""Four ways to train on the votes of annotators, as FERPlus was published with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Choice, LossOut, Method, MethodCard, Output, Param, SpecError, TrainView, to_device

from ._shared.compose import SAMPLER, WEIGHTS, Composable

card = MethodCard(
    name="ferplus_votes",
    title="Training on votes: majority, drawn label, distribution, or any of several labels",
    paper="Barsoum et al., Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label "
    "Distribution, ICMI 2016",
    year=2016,
    url="https://arxiv.org/abs/1608.01041",
    family="noisy labels",
    changes="the target of an image is made of its votes: the majority, a label drawn anew each step, their "
    "distribution, or whichever frequent one the network finds likeliest. Images without agreement are left out",
    deviations=(
        "the four modes and the images that they leave out agree with the authors' code (microsoft/FERPlus, commit "
        "ae2128a) on votes for emotions. Its counts include votes for 'unknown' and 'no face', which a protocol's "
        "shares lack",
        "single votes are recognised by their share, see `outlier`: the number of voters is not known",
        "images without agreement are drawn like others and have weight 0 in the batch's mean; the code removes them "
        "from the set, and the protocol decides which images are there at all",
        "a VGG13, 64 pixels and the code's distortions are the study's recipe",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "mode": Param(
            "probability",
            "majority: the label with more than half of the votes; probability: a label drawn from the votes each "
            "step, the paper's best beside crossentropy; crossentropy: their shares as soft target; multi_target: -log "
            "of the largest p among labels with 30 % of the votes",
            choices=("majority", "probability", "crossentropy", "multi_target"),
            space=Choice(("majority", "probability", "crossentropy", "multi_target")),
        ),
        "outlier": Param(
            0.19,
            "shares of votes up to this one are dropped. Of ten voters of whom six name an emotion, a single vote has "
            "a share of 0.1 to 0.17, two votes have 0.2 or more. 0 keeps all",
            low=0.0,
            high=0.5,
        ),
    },
    needs=("votes",),
)

HALF, MOST, FREQUENT, AT_MOST = 0.5, 0.75, 0.3, 3  # of the authors' code
OTHERS = 0.001  # what a label outside the allowed ones counts in "multi_target", of their code
NEAR = 1e-6  # shares are quotients of small whole numbers


class FERPlusVotes(Composable, Method):
    """Plain cross-entropy, or the multi-target loss, with a target made of votes."""

    card = card

    def on_fit_start(self, model: nn.Module, view: TrainView) -> None:
        """Refuse a training fold without votes, on which all modes are plain cross-entropy."""
        if view.soft is None:
            raise SpecError(
                "ferplus_votes needs votes, and this protocol's training images have labels alone",
                where=f"method {card.name}",
                hint="a protocol with soft labels, such as --dataset ferplus --protocol ferplus8/soft",
            )

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch: the mean over the images on which annotators agree well enough."""
        output = model(batch.x)
        votes = without_outliers(batch.soft_target(self.ctx.num_classes), self.params["outlier"])
        target, kept = vote_targets(votes, self.params["mode"])
        if self.params["mode"] == "probability":
            target = drawn(target, self.generator("votes"))
        voted = batch.with_(soft=target)
        losses, weights = self.criterion(output, voted.target), self.image_weights(voted)
        losses = losses if weights is None else losses * weights
        return LossOut(total=(losses * kept).sum() / kept.sum().clamp_min(1), output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy, or -log max_k t_k p_k with t = 1 for the allowed labels and 0.001 for others; [B]."""
        logits = output.logits.float()
        if self.params["mode"] != "multi_target" or target.ndim == 1:
            return F.cross_entropy(logits, target, reduction="none")
        allowed = target >= target.amax(1, keepdim=True) - NEAR  # all of them have the same share, smoothed or not
        return -(logits.log_softmax(1) + torch.where(allowed, 0.0, math.log(OTHERS))).amax(1)


def without_outliers(shares: Tensor, outlier: float) -> Tensor:
    """Shares [B, K] of the votes that are left without those of a share up to `outlier`; zeros where none is."""
    left = torch.where(shares > outlier + NEAR, shares, 0.0)
    return left / left.sum(1, keepdim=True).clamp_min(NEAR)


def vote_targets(votes: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Distributions [B, K] of a mode, and 1 for images on which annotators agree well enough, otherwise 0 [B].

    "majority": the label with more than half of the votes. "multi_target": equal shares for the labels with 30 % of the
    votes, which must have more than half together. The others: the most frequent labels, down to the one that makes
    their share 75 %; three at most, ties included, and more than half of the votes.
    """
    higher = (votes[:, None, :] > votes[:, :, None] + NEAR).float()  # [B, K, K]: the last is ahead of the middle one
    match mode:
        case "majority":
            chosen = votes > HALF + NEAR
        case "multi_target":
            chosen = votes > FREQUENT - NEAR
        case _:
            ahead = (higher * votes[:, None, :]).sum(2)
            chosen = (votes > 0) & (ahead < MOST - NEAR) & (higher.sum(2) < AT_MOST)
    kept = ((votes * chosen).sum(1) > HALF + NEAR) & (chosen.sum(1) <= AT_MOST)
    target = chosen.float() if mode == "multi_target" else votes * chosen
    return target / target.sum(1, keepdim=True).clamp_min(NEAR), kept.float()


def drawn(shares: Tensor, generator: torch.Generator) -> Tensor:
    """One label drawn from each row of shares [B, K], one-hot."""
    device = torch.device("cpu") if shares.device.type == "mps" else shares.device  # Apple's GPUs have no float64
    sums = shares.to(device).double().cumsum(1)
    u = to_device(torch.rand(len(shares), 1, generator=generator, dtype=torch.float64), device) * sums[:, -1:]
    label = (sums <= u).sum(1).clamp_max(shares.shape[1] - 1)
    return F.one_hot(label, shares.shape[1]).float().to(shares.device)
