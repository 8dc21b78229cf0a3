"""Learnable weight scaling: one number a class, learned on class-balanced batches."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fer_bench import Method, MethodCard, Trunk

from ._shared.decoupled import (
    BALANCED,
    SAMPLER_DEVIATION,
    SECOND_STAGE,
    STAGES_DEVIATION,
    AdjustedClassifier,
    Decoupled,
    Scales,
)

card = MethodCard(
    name="lws",
    title="Learnable weight scaling (LWS)",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.2",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="two-stage",
    changes="after the usual training, everything is frozen but one scale f_c of each class, learned on class-balanced "
    "batches: logits f_c (w_c x + b_c)",
    deviations=(
        STAGES_DEVIATION,
        SAMPLER_DEVIATION,
        "the scale multiplies the bias too, as in the authors' code (facebookresearch/classifier-balancing f162ade, "
        "models/TauNormClassifier.py); the paper scales weights alone",
        "the second stage is as long as that of crt; half as long (5 epochs of 90) in the authors' ImageNet-LT recipe",
    ),
    params={**SECOND_STAGE, **BALANCED},
)


class Lws(Decoupled, Method):
    """Two stages; only the scales learn in the second."""

    card = card
    frozen = ("trunk", "head.linear")
    waits = ("head.adjust",)

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with a scale for each class."""
        return AdjustedClassifier(backbone(), self.ctx.num_classes, Scales(self.ctx.num_classes))
