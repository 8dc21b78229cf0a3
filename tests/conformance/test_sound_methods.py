"""Methods that look odd and keep every promise: the kit refuses none of them, and says what is worth knowing."""

from __future__ import annotations

import pytest

from fer_bench.conformance.check import Terms, check
from fer_bench.conformance.promise import FAILED, KEPT, NOTHING

TAU = '"tau": Param(1.0, "strength", low=0.0, high=2.0)'
SMALL = """
    def on_fit_start(self, model, view):
        if len(view) < 100:
            raise SpecError("at least 100 images are needed")
"""
NO_EMPTY = """
    def on_fit_start(self, model, view):
        if view.counts.min() == 0:
            raise SpecError("every class needs an image")
"""
CASES: dict[str, tuple[tuple[str, ...], str, str, dict[str, str]]] = {
    "reads a parameter that has no effect here": (
        ("values", "effects"),
        f", params={{{TAU}}}",
        """
    def criterion(self, output, target):
        scale = self.params["tau"] if self.ctx.num_classes > 100 else 1.0
        return F.cross_entropy(output.logits, target) * scale
        """,
        {"effects": "no value that was tried of tau changed anything: does the help say when it matters?"},
    ),
    "has a parameter that matters beside another": (
        ("values", "effects"),
        f', params={{"way": Param("plain", "which", choices=("plain", "scaled")), {TAU}}}',
        """
    def criterion(self, output, target):
        scale = self.params["tau"] if self.params["way"] == "scaled" else 1.0
        return F.cross_entropy(output.logits, target) * scale
        """,
        {"effects": ""},
    ),
    "has a parameter that matters late": (
        ("values", "effects"),
        f", params={{{TAU}}}",
        """
    def training_step(self, model, batch):
        output = model(batch.x)
        scale = self.params["tau"] if batch.epoch > 0.7 * self.ctx.epochs else 1.0
        return LossOut(total=scale * self.batch_loss(output, batch), output=output)
        """,
        {"effects": ""},
    ),
    "has a parameter of the read-out": (
        ("values", "effects"),
        f", params={{{TAU}}}",
        """
    def adjust(self, logits, features):
        return logits * (1 + self.params["tau"])
        """,
        {"effects": ""},
    ),
    "needs larger images and says so": (
        ("networks", "batches", "learns", "seal"),
        ', needs=("40 pixels",)',
        """
    def build_model(self, backbone):
        if self.ctx.image_shape[1] < 40:
            raise SpecError("images of at least 40 pixels are needed")
        return super().build_model(backbone)
        """,
        {"networks": "works with ResNet, ConvNeXt, ViT"},
    ),
    "has a helper whose name is almost that of a hook": (
        ("hooks",),
        "",
        """
    def stage(self):
        return Stage(name="all")

    def stages(self):
        return [self.stage()]
        """,
        {"hooks": ""},
    ),
    "has a layer of noise": (
        ("draws", "resume"),
        "",
        """
    def build_model(self, backbone):
        class GaussianNoise(nn.Module):
            def forward(self, x):
                return x + 0.1 * torch.randn_like(x) if self.training else x

        model = super().build_model(backbone)
        model.head = nn.Sequential(GaussianNoise(), model.head)
        return model
        """,
        {"draws": ""},
    ),
    "refuses a small fold": (
        ("draws", "resume", "rare class", "learns"),
        "",
        SMALL,
        {
            "trains": "96 steps; it refuses folds of few images, so all have 16 times as many",
            "rare class": "it refuses such a fold: at least 100 images are needed",
        },
    ),
    "refuses a fold with an empty class": (
        ("empty class", "rare class", "late"),
        "",
        NO_EMPTY,
        {"empty class": "it refuses such a fold: every class needs an image", "rare class": ""},
    ),
}


@pytest.mark.parametrize(("only", "card", "body", "notes"), [pytest.param(*v, id=n) for n, v in CASES.items()])
def test_an_odd_method_is_not_refused(write_method, only, card, body, notes):
    (report,) = check(write_method(card, body), Terms(only=only))
    assert [v.failures for v in report.verdicts if v.state == FAILED] == []
    verdicts = {v.promise: v for v in report.verdicts}
    assert {name: verdicts[name].note for name in notes} == notes
    refused = {name for name, note in notes.items() if "refuses such a fold" in note}
    assert {v.promise for v in report.verdicts if v.state == NOTHING} - {"parameters", "values", "effects"} == refused
    assert {v.promise for v in report.verdicts if v.state == KEPT} >= set(only) - refused
