"""Classifier re-training: a fresh classifier on the frozen trunk, from class-balanced batches."""

from __future__ import annotations

from fer_bench import Method, MethodCard

from ._shared.decoupled import BALANCED, SAMPLER_DEVIATION, SECOND_STAGE, STAGES_DEVIATION, Decoupled

card = MethodCard(
    name="crt",
    title="Classifier re-training (cRT)",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.2",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="two-stage",
    changes="after the usual training, the trunk is frozen, BatchNorm statistics included, and a fresh linear "
    "classifier is trained by cross-entropy on class-balanced batches",
    deviations=(STAGES_DEVIATION, SAMPLER_DEVIATION),
    params={**SECOND_STAGE, **BALANCED},
)


class Crt(Decoupled, Method):
    """Two stages; the second one starts with a fresh head."""

    card = card
    fresh = ("head",)
