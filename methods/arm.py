"""ARM: rearranged channels, one large kernel, and the mean of the batch added to each image's map."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from fer_bench import Batch, Choice, Float, Method, MethodCard, Param, Trunk

from ._rasn.sharing_net import build_sharing_classifier
from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="arm",
    title="Amending Representation Module (ARM)",
    paper="Shi et al., Learning to Amend Facial Expression Representation via De-albino and Affinity, 2021",
    year=2021,
    url="https://arxiv.org/abs/2103.10189",
    family="architecture",
    changes="the last map is rearranged to few large maps (512x7x7 to 2x112x112), read by one large kernel (2x11x11), "
    "averaged, and the mean over the batch is added to it; a linear layer reads the 121 cells",
    deviations=(
        "evaluation adds a stored mean, so that a prediction reads its own image alone. The authors' code "
        "(JiaweiShiCV/Amend-Representation-Module, commit fb8a155) adds the mean of the test batch, which is "
        "eval.affinity=test_batch; with it, network and predictions agree with the code on the same weights. The "
        "published numbers come from that, on test images in file order, where most of a batch is of one expression",
        "the probe finds that predictions depend on the test batch with eval.affinity=test_batch, and marks such runs "
        "as transductive in every table; with the default they don't",
        "kernel and stride are the code's 32 and 8 for 16-fold rearrangement; other widths of the map keep their "
        "proportion to a cell of the map. The authors' sizes for small images are not public",
        "a last map below 3x3, which the kernel could read at one place only, is stretched to 3x3: larger images or a "
        "backbone with a larger map are what the method needs",
        "sampler=capped is a reading of the paper's minimal random resampling, which has no public code",
        "ImageNet weights, 224 pixels, Adam, exponential decay, noise and erasing are the study's recipe",
    ),
    params={
        **COMPOSE,
        "share.source": Param(
            "batch_mean",
            "what is added in training; batch_mean: the mean over the batch, as in the code; ema: the running mean, as "
            "a later figure has it; leave_one_out: the mean of the others; none: de-albino alone",
            choices=("batch_mean", "ema", "leave_one_out", "none"),
            space=Choice(("batch_mean", "none")),
        ),
        "share.momentum": Param(
            0.9,
            "momentum of the stored mean, updated each step; not in the paper",
            low=0.0,
            high=0.9999,
            space=Float(0.5, 0.99),
            when=(
                {"share.source": ("batch_mean", "leave_one_out"), "eval.affinity": ("frozen_ema",)},
                {"share.source": ("ema",)},
            ),
        ),
        "eval.affinity": Param(
            "frozen_ema",
            "what is added in evaluation; frozen_ema: the running mean; train_set_mean: one pass over the training "
            "fold before each evaluation; none: nothing; test_batch: the mean of the test batch, as published",
            choices=("frozen_ema", "train_set_mean", "none", "test_batch"),
            when=({"share.source": ("batch_mean", "ema", "leave_one_out")},),
        ),
    },
    needs=("feature map",),
)

SHARING = {
    "share.level": "arm",
    "share.fusion": "add_alpha",
    "share.alpha": "learnable",
    "share.detach": False,
    "share.atoms": 0,
    "attn.type": "none",
    "attn.place": "after_layer4",
    "attn.reduction": 1,
    "head": "arm_dealbino",
    "head.enlarge": True,
}
"""ARM in the terms of the network that RASN was rebuilt with: no attention, and de-albino maps are shared."""


class ARM(ComposableCrossEntropy, Method):
    """De-albino maps, their batch mean, and cross-entropy."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; SpecError for a backbone without a last map."""
        params = {**SHARING, **{k: v for k, v in self.params.items() if k.startswith(("share.", "eval."))}}
        return build_sharing_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, params, owner=card.name)

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the training fold's mean map, where evaluation adds it."""
        if self.params["eval.affinity"] == "train_set_mean" and self.params["share.source"] != "none":
            model.store_train_mean(batches())  # type: ignore[operator]
