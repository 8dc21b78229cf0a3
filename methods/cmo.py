"""CMO: rectangles of rare-class images pasted onto images of the natural stream."""

from __future__ import annotations

import torch

from fer_bench import Batch, Float, Method, MethodCard, Param, Stage, StreamSpec

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import beta, cut_to, pasted
from ._shared.samplers import Power

card = MethodCard(
    name="cmo",
    title="Context-rich minority oversampling (CMO)",
    paper="Park et al., The Majority Can Help the Minority: Context-rich Minority Oversampling for Long-tailed "
    "Classification, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2112.00412",
    family="mixing",
    changes="CutMix with two streams: a rectangle of an image from a class-balanced stream is pasted onto each image; "
    "labels are mixed by the area; off in the first and last epochs",
    deviations=(
        "agrees with naver-ai/cmo (10d2d09) for batches, rectangles and labels",
        "the paper draws patches with p_c ∝ 1/n_c, which is patch.q=-1; the code gives each image the weight 1/n_c, "
        "so that every class is drawn alike: patch.q=0, the default",
        "start and end are shares of the epochs, 3 of 200 each; the code's strict inequality leaves out 4 at the start",
        "with weights, a mixed image has the expected weight of its labels; the code weighs each label's loss by "
        "itself",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "p": Param(
            0.5,
            "share of the batches that are mixed: 0.5 as in the paper and the code",
            low=0.0,
            high=1.0,
            space=Float(0.1, 1.0),
        ),
        "alpha": Param(
            1.0,
            "both parameters of the Beta distribution of the share that stays: 1 (uniform), as in the code",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
        "patch.q": Param(
            0.0,
            "patches come from class c with p_c ∝ n_c^q: 0 in the code, -1 in the paper, 1 is CutMix with two streams",
            low=-2.0,
            high=1.0,
            space=Float(-1.0, 0.5),
        ),
        "off.first": Param(
            0.015,
            "share of the epochs at the start without mixing: 3 of 200 in the code",
            low=0.0,
            high=1.0,
        ),
        "off.last": Param(
            0.015,
            "share of the epochs at the end without mixing: 3 of 200 in the code",
            low=0.0,
            high=1.0,
        ),
    },
)


class CMO(ComposableCrossEntropy, Method):
    """Cross-entropy on images with patches of rarer classes."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream of backgrounds, and the stream of patches."""
        return {
            "main": StreamSpec(sampler=self.sampler()),
            "patches": StreamSpec(sampler=Power(q=self.params["patch.q"])),
        }

    def on_batch(self, batch: Batch) -> Batch:
        """The main batch, with patches or as it is."""
        plain = batch.with_(aux={})
        chance = float(torch.rand((), generator=batch.generator))
        if chance >= self.params["p"] or not self.on(batch.epoch):
            return plain
        share = beta(self.params["alpha"], self.params["alpha"], batch.generator)
        return pasted(plain, cut_to(batch.aux["patches"], len(batch.y)), self.ctx.num_classes, share)

    def on(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, mixes at all."""
        first, last = (self.ctx.epoch_after(self.params[name]) for name in ("off.first", "off.last"))
        return first <= epoch < self.ctx.epochs - last
