"""Plain cross-entropy: what every method is compared with."""

from __future__ import annotations

from fer_bench import Method, MethodCard

card = MethodCard(
    name="baseline_resnet",
    title="Cross-entropy on any timm backbone (a ResNet by default)",
    paper="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
    year=2016,
    url="https://arxiv.org/abs/1512.03385",
    family="baseline",
    changes="nothing: softmax cross-entropy, every training image once per epoch",
    deviations=("the backbone and the recipe are those of the study, not the paper's",),
    tier="baseline",
)


class BaselineResNet(Method):
    """Every hook keeps its default."""

    card = card
