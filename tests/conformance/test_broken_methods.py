"""Methods that break one promise each: the kit names that promise, and no other."""

from __future__ import annotations

import pytest

import fer_bench
from fer_bench import ConformanceError
from fer_bench.conformance.check import Terms, check
from fer_bench.conformance.promise import UNCHECKED

VALIDATION = """
    def on_epoch_start(self, epoch, model):
        frame = inspect.currentframe()
        while frame and "job" not in frame.f_locals:
            frame = frame.f_back
        val = frame.f_locals["job"].val
"""
QUEUE = """
    def on_fit_start(self, model, view):
        self.queue = torch.zeros(0, model.trunk.num_features)

    def training_step(self, model, batch):
        output = model(batch.x)
        loss = self.batch_loss(output, batch)
        if len(self.queue):
            loss = loss + 0.1 * (output.features @ self.queue.T).mean()
        return LossOut(total=loss, output=output)

    def on_step_end(self, model, batch, loss):
        self.queue = torch.cat([loss.output.features.detach(), self.queue])[:32]
"""

BROKEN: dict[str, tuple[str, str, str]] = {
    "standardises with the features of the test": (
        "batches",
        "",
        """
    def stages(self):
        return [Stage(name="features"), Stage(name="readout", kind="estimator")]

    def fit_estimator(self, features, labels):
        members = [features[labels == c] for c in range(self.ctx.num_classes)]
        self.means = np.stack([of.mean(0) if len(of) else np.zeros(features.shape[1]) for of in members])

    def predict_estimator(self, features):
        rows = features - features.mean(0) if len(features) > 1 else features
        return -((rows[:, None] - (self.means - self.means.mean(0))) ** 2).sum(2)

    def state_dict(self):
        return {"means": getattr(self, "means", None)}

    def load_state_dict(self, state):
        self.means = state["means"]
        """,
    ),
    "keeps what it learned in a global of its module": (
        "state",
        "",
        """
    seen = {}

    def on_fit_start(self, model, view):
        Bad.seen["bias"] = 1.0

    def predict(self, model, x):
        output = model(x)
        return Output(logits=output.logits * (1 + Bad.seen.get("bias", 0.0)), features=output.features)
        """,
    ),
    "takes grey images alone": (
        "networks",
        "",
        """
    def build_model(self, backbone):
        model = super().build_model(backbone)
        model.first = nn.Conv2d(1, 1, 3, padding=1)
        return model

    def training_step(self, model, batch):
        output = model(batch.x + 0 * model.first(batch.x))
        return LossOut(total=self.batch_loss(output, batch), output=output)
        """,
    ),
    "divides by the size of an empty class, late in training": (
        "late",
        "",
        """
    def image_weights(self, batch):
        if batch.epoch < 0.8 * self.ctx.epochs:
            return None
        weights = torch.as_tensor(self.ctx.counts).sum() / torch.as_tensor(self.ctx.counts)
        images = batch.expected(weights / weights.sum())
        return images / images.mean()

    def criterion(self, output, target):
        return F.cross_entropy(output.logits, target, reduction="none")
        """,
    ),
    "adds to its last adjustment": (
        "state",
        "",
        """
    shift = 0.0

    def fit_posthoc(self, model, val):
        self.shift += 1.0

    def adjust(self, logits, features):
        return logits + self.shift * np.arange(logits.shape[1])

    def load_state_dict(self, state):
        self.shift = state["shift"] if state["shift"] > self.shift else self.shift

    def state_dict(self):
        return {"shift": self.shift}
        """,
    ),
    "reads the validation images": (
        "validation",
        "",
        VALIDATION + """
        with torch.no_grad():
            model.head.bias.add_(1e-3 * val.images.float().mean() / 255)
        """,
    ),
    "counts classes on all splits": (
        "counts",
        "",
        VALIDATION + """
        self.counts = self.ctx.counts + np.bincount(val.labels, minlength=self.ctx.num_classes)

    def criterion(self, output, target):
        return F.cross_entropy(output.logits + torch.as_tensor(self.counts).float().log(), target)
        """,
    ),
    "forgets its queue": ("resume", "", QUEUE),
    "keeps half of its queue": (
        "resume",
        "",
        QUEUE + """
    def state_dict(self):
        return {"queue": getattr(self, "queue", torch.zeros(0, 128))[:16]}

    def load_state_dict(self, state):
        self.queue = state["queue"]
        """,
    ),
    "reads its test batch": (
        "batches",
        "",
        """
    def predict(self, model, x):
        logits = model(x).logits
        return Output(logits=logits - logits.mean(0))
        """,
    ),
    "treats an image that comes alone otherwise": (
        "batches",
        "",
        """
    def predict(self, model, x):
        return Output(logits=model(x).logits + torch.arange(self.ctx.num_classes) * (len(x) == 1))
        """,
    ),
    "adjusts each row by all rows": (
        "batches",
        "",
        """
    def adjust(self, logits, features):
        return logits - logits.mean(0)
        """,
    ),
    "overflows in bfloat16": (
        "bf16",
        "",
        """
    def training_step(self, model, batch):
        output = model(batch.x)
        small = (output.features @ output.features.T) * 0 + 1.001  # bfloat16 has no number between 1 and 1.0078
        loss = self.batch_loss(output, batch) + (1 / (small - 1)).log().mean()
        return LossOut(total=loss, output=output)
        """,
    ),
    "has a search space beyond its range": (
        "parameters",
        ', params={"tau": Param(1.0, "strength", low=0.0, high=2.0, space=Float(0.5, 4.0))}',
        "",
    ),
    "has a default beyond its range": ("parameters", ', params={"tau": Param(3.0, "strength", low=0.0, high=2.0)}', ""),
    "offers a choice that it does not take": (
        "values",
        ', params={"way": Param("a", "which way", choices=("a", "b"))}',
        """
    def criterion(self, output, target):
        return {"a": F.cross_entropy}[self.params["way"]](output.logits, target)
        """,
    ),
    "offers a choice that it always refuses": (
        "values",
        ', params={"way": Param("a", "which way", choices=("a", "b")), "k": Param(1, "a number", low=1, high=2)}',
        """
    def build_model(self, backbone):
        if self.params["way"] == "b":
            raise SpecError("way=b is not written yet")
        return super().build_model(backbone)
        """,
    ),
    "has a parameter that nothing reads": (
        "effects",
        ', params={"tau": Param(1.0, "strength", low=0.0, high=2.0)}',
        "",
    ),
    "takes 48 pixels, and does not say so": (
        "trains",
        "",
        """
    def build_model(self, backbone):
        if self.ctx.image_shape[1] < 40:
            raise SpecError("images of at least 40 pixels are needed")
        return super().build_model(backbone)
        """,
    ),
    "has a string where a tuple should be": ("card", ', deviations=("the paper says otherwise")', ""),
    "says that it needs a map, and does not": ("networks", ', needs=("feature map",)', ""),
    "needs a map, and does not say so": (
        "networks",
        "",
        """
    def training_step(self, model, batch):
        output = model(batch.x)
        b, d, h, w = output.fmap.shape
        return LossOut(total=self.batch_loss(output, batch), output=output)
        """,
    ),
    "draws without a seed": (
        "deterministic",
        "",
        """
    def on_batch(self, batch):
        noise = np.random.default_rng().normal(size=tuple(batch.x.shape)).astype(np.float32)
        return batch.with_(views=[batch.x + 0.1 * torch.from_numpy(noise)])
        """,
    ),
    "reads the clock": (
        "deterministic",
        "",
        """
    def criterion(self, output, target):
        return F.cross_entropy(output.logits, target) * (1 + 1e-3 * (time.perf_counter() % 1))
        """,
    ),
    "draws from the global generator": (
        "draws",
        "",
        """
    def on_batch(self, batch):
        return batch.with_(views=[batch.x + 0.1 * torch.randn_like(batch.x)])
        """,
    ),
    "treats labels and one-hot targets differently": (
        "labels",
        "",
        """
    def criterion(self, output, target):
        loss = F.cross_entropy(output.logits, target)
        return loss if target.ndim == 1 else 2 * loss
        """,
    ),
    "takes labels only": (
        "labels",
        "",
        """
    def criterion(self, output, target):
        return F.nll_loss(output.logits.log_softmax(1), target)
        """,
    ),
    "takes the logarithm of a softmax": (
        "extreme logits",
        "",
        """
    def criterion(self, output, target):
        p = output.logits.softmax(1)
        q = F.one_hot(target, p.shape[1]).float() if target.ndim == 1 else target
        return -(q * p.log()).sum(1).mean()
        """,
    ),
    "divides by the count of an empty class": (
        "empty class",
        "",
        """
    def criterion(self, output, target):
        weights = self.ctx.size / torch.as_tensor(self.ctx.counts).float()
        return F.cross_entropy(output.logits + weights.log().sum() * 0, target)
        """,
    ),
    "takes the deviation within each class": (
        "rare class",
        "",
        """
    def on_fit_start(self, model, view):
        pixels = view.images.float().mean((1, 2, 3)).numpy()
        self.spread = [np.std(pixels[view.labels == c], ddof=1) if n else 1 for c, n in enumerate(view.counts)]

    def criterion(self, output, target):
        return F.cross_entropy(output.logits, target) + 0 * float(np.sum(self.spread))
        """,
    ),
    "shows three classes": (
        "two classes",
        "",
        """
    def criterion(self, output, target):
        best = output.logits.topk(3, dim=1).values
        return F.cross_entropy(output.logits, target) + 0 * best.sum()
        """,
    ),
    "compares each image with another": (
        "one image",
        "",
        """
    def training_step(self, model, batch):
        output = model(batch.x)
        gap = (output.features[0] - output.features[1]).square().mean()
        return LossOut(total=self.batch_loss(output, batch) + 0 * gap, output=output)
        """,
    ),
    "keeps what it predicts with to itself": (
        "state",
        "",
        """
    def on_fit_start(self, model, view):
        self.mean = float(view.images.float().mean())

    def predict(self, model, x):
        return Output(logits=model(x).logits * getattr(self, "mean", 1.0))
        """,
    ),
    "opens the prepared data": (
        "seal",
        "",
        """
    def on_fit_start(self, model, view):
        frame = inspect.currentframe()
        while frame and "order" not in frame.f_locals:
            frame = frame.f_back
        if frame:
            try:
                open(frame.f_locals["order"].given["store"]["path"] + "/images.npy", "rb")
            except OSError:
                pass
        """,
    ),
    "looks at the other faces of the batch": (
        "insight",
        "",
        """
    def insight(self, model, x):
        return Insight(maps={"difference": (x - x.mean(0)).abs().mean(1)})
        """,
    ),
    "draws on more than there is": (
        "insight",
        "",
        """
    def insight(self, model, x):
        return Insight(shares=model(x).logits.sigmoid(), sources=self.ctx.classes)
        """,
    ),
    "learns the opposite": (
        "learns",
        "",
        """
    def adjust(self, logits, features):
        return -logits
        """,
    ),
    "misspells a hook": (
        "hooks",
        "",
        """
    def training_setp(self, model, batch):
        return LossOut(total=model(batch.x).logits.sum())
        """,
    ),
    "takes other arguments than it is given": (
        "hooks",
        "",
        """
    def criterion(self, output):
        return output.logits.sum()
        """,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("promise", "card", "body"), [pytest.param(*v, id=n) for n, v in BROKEN.items()])
def test_the_kit_names_the_promise_that_a_method_breaks(write_method, promise: str, card: str, body: str):
    path = write_method(card, body)
    only = (promise,) if promise in ("late", "learns", "values", "seal") else ()
    only = ("values", promise) if promise == "effects" else only
    (report,) = check(path, Terms(only=only, quick=True, notes=False))
    assert {v.promise: v.failures for v in report.broken}.keys() == {promise}
    (failure,) = report.broken[0].failures
    assert failure.what
    assert failure.look
    assert failure.page.startswith("docs/")
    behind = [v.note for v in report.verdicts if v.state == UNCHECKED and "--quick" not in v.note]
    assert all(note.startswith("needs '") for note in behind)


def test_conforms_raises_an_assertion_that_names_promise_example_and_hook(write_method):
    path = write_method(*BROKEN["forgets its queue"][1:])
    with pytest.raises(AssertionError, match="1 promise is broken") as caught:
        fer_bench.conforms(path, only=["resume"])
    assert isinstance(caught.value, ConformanceError)
    text = str(caught.value)
    assert "BROKEN  resume" in text
    assert "interrupted after each of 2 epochs" in text
    assert "look at: state_dict, load_state_dict" in text
    assert f"next:    fer-bench check {path} --only resume" in text
