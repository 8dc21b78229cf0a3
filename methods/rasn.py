"""RASN in a clean form: attention and shared affinity features, with predictions that read one image alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Choice, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec

from ._rasn.sharing_net import build_sharing_classifier
from ._shared.losses import inverse_weights, relative
from ._shared.samplers import BalancedCapped

card = MethodCard(
    name="rasn",
    title="Residual Attentive Sharing Network, clean reconstruction",
    paper="Yang et al., RASN: Using Attention and Sharing Affinity Features to Address Sample Imbalance in Facial "
    "Expression Recognition, IEEE Access 10, 2022",
    year=2022,
    url="https://doi.org/10.1109/ACCESS.2022.3210109",
    family="architecture",
    changes="residual CBAM on the last map; its batch mean (affinity), attended, is added to every sample's map",
    deviations=(
        "reconstruction: the paper's equations and code are not public; built from its abstract and from ARM "
        "(arXiv 2103.10189), every guess is a parameter",
        "evaluation uses an affinity stored in training; ARM's code, RASN's likely model, reads the test batch",
        "eval.affinity=test_batch covers the notes' file-order and shuffled variants: the harness orders the batches",
        "with add_alpha, pooling and a frozen affinity, sharing shifts all logits by one constant vector at inference: "
        "what it gains, it gains in training",
        "pretraining, image size, optimiser and augmentation are the study's recipe, not the paper's (unknown)",
    ),
    needs=("feature map",),
    params={
        "share.level": Param(
            "map",
            "what is shared [reconstruction]; map: the last map (512x7x7 in a ResNet-18 at 224 pixels), pooled: the "
            "pooled features (512), arm: ARM's mean de-albino map (11x11=121), which needs head=arm_dealbino",
            choices=("map", "pooled", "arm"),
        ),
        "share.source": Param(
            "batch_mean",
            "affinity in training; batch_mean as in ARM; ema: running mean, gradient through the present batch's part; "
            "class_balanced_mean: mean of class means; leave_one_out: mean of the others; none: no sharing",
            choices=("batch_mean", "ema", "class_balanced_mean", "leave_one_out", "none"),
            space=Choice(("batch_mean", "ema", "class_balanced_mean", "leave_one_out")),
        ),
        "share.fusion": Param(
            "add_alpha",
            "x + αA as in ARM; gate: x·σ(αA) + αA as in a public ARM derivative; concat: 1x1 convolution of [x; αA]",
            choices=("add_alpha", "gate", "concat"),
        ),
        "share.alpha": Param(
            "learnable",
            "factor α on the affinity, in every fusion; learnable starts at 1 (ARM's code)",
            choices=("learnable", 0, 0.1, 0.5, 1),
            space=Choice(("learnable", 0.1, 0.5, 1)),
        ),
        "share.detach": Param(
            False,
            "stop the gradient from the affinity to the features: isolates the shared gradient (α/B)Σg_j",
            choices=(False, True),
            space=Choice((False, True)),
        ),
        "share.momentum": Param(
            0.9,
            "momentum of the stored affinity, updated each step [reconstruction]",
            low=0.0,
            high=0.9999,
            space=Float(0.5, 0.99),
        ),
        "eval.affinity": Param(
            "frozen_ema",
            "affinity in evaluation; frozen_ema: the running mean; train_set_mean: one pass over the training fold "
            "before each evaluation; none: zero; test_batch: the mean of the test batch, transductive, diagnostic only",
            choices=("frozen_ema", "train_set_mean", "none", "test_batch"),
        ),
        "attn.type": Param(
            "cbam",
            "attention gate [reconstruction]; cbam: Woo 2018, se: Hu 2018, spatial: CBAM's spatial part alone",
            choices=("cbam", "se", "spatial", "none"),
        ),
        "attn.place": Param(
            "after_layer4+on_affinity",
            "after_layer4: F + F·M(F) on the last map; on_affinity: A·M(A); every_block: behind each residual block of "
            "a ResNet and nowhere else [reconstruction]",
            choices=("after_layer4+on_affinity", "on_affinity", "after_layer4", "every_block"),
        ),
        "attn.reduction": Param(
            16,
            "channels over hidden units of the channel gate (CBAM and SE)",
            low=1,
            high=512,
            space=Choice((4, 8, 16, 32)),
        ),
        "head": Param(
            "gap",
            "gap: the backbone's pooling; arm_dealbino: ARM's PixelShuffle and large kernel, scaled to the map's size. "
            "After share.level=map its BatchNorm removes the affinity's mean in training",
            choices=("gap", "arm_dealbino"),
        ),
        "sampler": Param(
            "shuffle",
            "balanced_capped: N/C images of each class an epoch, a reading of ARM's MRR; class_weighted_ce: shuffle, "
            "and each image's cross-entropy weighted by N/(C n_c) of its class",
            choices=("shuffle", "balanced_capped", "class_weighted_ce"),
        ),
    },
)


class RASN(Method):
    """Attention -> affinity -> sharing -> linear head; cross-entropy."""

    card = card

    def build_model(self, backbone: Callable[[], nn.Module]) -> nn.Module:
        """Network of the chosen switches; SpecError where they don't fit the backbone or one another."""
        return build_sharing_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, self.params)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream: shuffled, or balanced by class."""
        balanced = self.params["sampler"] == "balanced_capped"
        return {"main": StreamSpec(sampler=BalancedCapped()) if balanced else StreamSpec()}

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch; the labels reach the network here only, for the class-balanced affinity."""
        output = model(batch.x, batch.y)
        return LossOut(total=self.batch_loss(output, batch), output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy: of each image [B] where images have weights, otherwise its mean."""
        weighted = self.params["sampler"] == "class_weighted_ce"
        return F.cross_entropy(output.logits, target, reduction="none" if weighted else "mean")

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class over their mean [B], where the sampler switch says so."""
        if self.params["sampler"] != "class_weighted_ce":
            return None
        return relative(batch.expected(inverse_weights(self.ctx.counts)))

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure the training fold's mean affinity, where evaluation uses it."""
        if self.params["eval.affinity"] == "train_set_mean" and self.params["share.source"] != "none":
            model.store_train_mean(batches())  # type: ignore[operator]
