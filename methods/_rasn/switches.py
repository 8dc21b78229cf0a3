"""The switches of RASN: every guess of the reconstruction, and the forms that are ours."""

from __future__ import annotations

from fer_bench import Choice, Float, Param

MEANS = ("batch_mean", "ema", "class_balanced_mean", "leave_one_out")
CONTROLS = ("own", "own_projection")
SOURCES = (*MEANS, "class_prototypes", "dictionary", *CONTROLS)
SHARED = ({"share.source": SOURCES},)
"""Beside which other switches one of sharing has an effect: where something is shared."""

SWITCHES = {
    "share.level": Param(
        "map",
        "what is shared [reconstruction]; map: the last map (512x7x7 in a ResNet-18 at 224 pixels), pooled: the "
        "pooled features (512), arm: ARM's mean de-albino map (11x11=121), which needs head=arm_dealbino, layer3: the "
        "map before a ResNet's last stage (256x14x14), so that nonlinearities follow",
        choices=("map", "pooled", "arm", "layer3"),
        when=SHARED,
    ),
    "share.source": Param(
        "batch_mean",
        "where the affinity comes from; batch_mean as in ARM; ema: running mean, gradient through the present batch's "
        "part; class_balanced_mean: mean of class means; leave_one_out: mean of the others; class_prototypes (ours): "
        "each image recalls running class means by attention; dictionary (ours): it recalls learned atoms that belong "
        "to no class; own: its own features, own_projection: a linear map of them with as many weights as the "
        "dictionary, controls that share nothing; none: no sharing, where the other switches of sharing have no effect",
        choices=(*SOURCES, "none"),
        space=Choice((*MEANS, "class_prototypes", "dictionary")),
    ),
    "share.fusion": Param(
        "add_alpha",
        "x + αA as in ARM; gate: x·σ(αA) + αA as in a public ARM derivative; concat: 1x1 convolution of [x; αA]; "
        "attend (ours): x + g(x)·αA with a learned gate g(x) = σ(w·x/√C + b)",
        choices=("add_alpha", "gate", "concat", "attend"),
        when=SHARED,
    ),
    "share.alpha": Param(
        "learnable",
        "factor α on the affinity, in every fusion; learnable starts at 1 (ARM's code)",
        choices=("learnable", 0, 0.1, 0.5, 1),
        space=Choice(("learnable", 0.1, 0.5, 1)),
        when=SHARED,
    ),
    "share.detach": Param(
        False,
        "stop the gradient from the affinity (and from g) to the features: isolates the shared gradient (α/B)Σg_j",
        choices=(False, True),
        space=Choice((False, True)),
        when=SHARED,
    ),
    "share.momentum": Param(
        0.9,
        "momentum of the stored mean, or of each class's prototype, updated each step [reconstruction]; no effect on "
        "dictionary, own and own_projection, nor on a mean that evaluation does not read, other than that of ema",
        low=0.0,
        high=0.9999,
        space=Float(0.5, 0.99),
        when=(
            {"share.source": MEANS, "eval.affinity": ("frozen_ema",)},
            {"share.source": ("ema", "class_prototypes")},
        ),
    ),
    "share.atoms": Param(
        16,
        "atoms of share.source=dictionary, and width of own_projection; no effect elsewhere",
        low=2,
        high=512,
        space=Choice((8, 16, 32)),
        when=({"share.source": ("dictionary", "own_projection")},),
    ),
    "eval.affinity": Param(
        "frozen_ema",
        "affinity in evaluation; frozen_ema: from the running means, or from what was learned; train_set_mean: means "
        "of one pass over the training fold before each evaluation; none: zero; test_batch: the mean of the test "
        "batch, transductive, diagnostic only",
        choices=("frozen_ema", "train_set_mean", "none", "test_batch"),
        when=SHARED,
    ),
    "attn.type": Param(
        "cbam",
        "attention gate [reconstruction]; cbam: Woo 2018, se: Hu 2018, spatial: CBAM's spatial part alone; none: "
        "no attention, where its place has no effect",
        choices=("cbam", "se", "spatial", "none"),
    ),
    "attn.place": Param(
        "after_layer4+on_affinity",
        "after_layer4: F + F·M(F) on the last map; on_affinity: A·M(A); every_block: behind each residual block of "
        "a ResNet and nowhere else [reconstruction]",
        choices=("after_layer4+on_affinity", "on_affinity", "after_layer4", "every_block"),
        when=({"attn.type": ("cbam", "se", "spatial")},),
    ),
    "attn.reduction": Param(
        16,
        "channels over hidden units of the channel gate (CBAM and SE); no effect on other gates",
        low=1,
        high=512,
        space=Choice((4, 8, 16, 32)),
        when=({"attn.type": ("cbam", "se")},),
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
    "loss.tau": Param(
        0.0,
        "strength τ of a logit-adjusted loss, cross-entropy of the logits plus τ log π; 0: plain cross-entropy",
        low=0.0,
        high=10.0,
    ),
}
