"""ArcFace and its relatives: the angle between features and the label's class vector must be smaller by a margin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Float, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import COMPOSE, Composable
from ._shared.heads import CosineClassifier
from ._shared.losses import margin_losses

card = MethodCard(
    name="arcface",
    title="Additive angular margin (ArcFace), with CosFace and SphereFace",
    paper="Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1801.07698",
    family="loss",
    changes="a cosine head of scale s, in which the label's cos θ becomes cos(m1 θ + m2) - m3: m2 alone is ArcFace, m3 "
    "alone CosFace, m1 alone SphereFace. Predictions have no margin",
    deviations=(
        "beyond π, where the cosine would rise again, it goes on falling as (-1)^k cos(t) - 2k, SphereFace's "
        "continuation (Liu et al. 2017, eq. 7), for all three margins; insightface's code jumps to cos θ - m2 sin m2 "
        "there",
        "SphereFace normalises class vectors alone and reaches m1 = 4 by annealing; here features are normalised too, "
        "as in ArcFace's comparison, where its m1 is 1.35 [recalled]",
        "s and the margins are those for tens of thousands of people; for few expressions they are to be tuned",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, each with its margin",
        "embedding layers behind the trunk (BatchNorm, dropout, 512 features), images and optimiser are the study's",
    ),
    calibration="the margin is there in training and not in the read-out, and the scale bounds the logits, so "
    "confidences follow s rather than the data",
    params={
        **COMPOSE,
        "scale": Param(
            64.0,
            "scale s of the cosines; 64 in the paper, 30 in LDAM's code for few classes",
            low=1.0,
            high=256.0,
            space=Float(8.0, 64.0, log=True),
        ),
        "m1": Param(1.0, "factor on the angle; 1 for none, 1.35 for SphereFace", low=1.0, high=4.0),
        "m2": Param(0.5, "added to the angle, in radians; 0.5 in the paper", low=0.0, high=1.5, space=Float(0.05, 0.6)),
        "m3": Param(0.0, "taken off the cosine; 0.35 in CosFace", low=0.0, high=1.5),
    },
    also_known={"cosface": "m2=0, m3=0.35", "sphereface": "m1=1.35, m2=0"},
)

EDGE = 1e-6  # of the cosine: there, the slope of the angle is 700; at 1 it has none


class ArcFace(Composable, Method):
    """A cosine head and margins on the label's angle."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with a cosine head."""
        return CosineClassifier(backbone(), self.ctx.num_classes, self.params["scale"])

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B] with the margin of its label."""
        scale, (m1, m2, m3) = self.params["scale"], (self.params[name] for name in ("m1", "m2", "m3"))
        logits = output.logits.float()
        lowered = scale * with_margins(logits / scale, m1, m2, m3)
        return margin_losses(logits, target, logits - lowered)


def with_margins(cosines: Tensor, m1: float, m2: float, m3: float) -> Tensor:
    """cos(m1 θ + m2) - m3 of cosines of θ, made to fall over the whole range of θ from 0 to π."""
    angle = m1 * torch.acos(cosines.clamp(-1 + EDGE, 1 - EDGE)) + m2
    turns = torch.floor(angle.detach() / math.pi)
    return (1 - 2 * (turns % 2)) * torch.cos(angle) - 2 * turns - m3
