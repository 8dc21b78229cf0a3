"""The method contract hosts the harder families of the literature: stages, read-outs, estimators.

Each method here is a plug-in written from a string, loaded by the real door and trained by the real executor. It notes
what its hooks saw in its module's ``SEEN``; the tests compare that, and the record, with numbers worked out by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Context
from fer_bench.contract.method import Method
from fer_bench.data.store import Store
from fer_bench.runs.executor import execute
from fer_bench.runs.worker import build_model, set_up
from fer_bench.training.checkpoint import load_plain, save_plain
from fer_bench.training.dataplane import prepare
from fer_bench.training.evaluate import predict

COUNTS = [48, 24, 16, 8]  # of the training fold of `tiny`


def kept(record) -> dict:
    """Weights and method state of the selected epoch."""
    return load_plain(record.path / "model.pt")


def pixels(record, role: str) -> torch.Tensor:
    """The uint8 images of a role, in the order of the record's rows."""
    store = Store.open(record.path.parents[1] / "data" / "tiny")
    return torch.from_numpy(store.images(record.array(f"{role}_rows")))


def train_fold(record) -> tuple[torch.Tensor, np.ndarray]:
    store = Store.open(record.path.parents[1] / "data" / "tiny")
    columns = store.columns("split", "label")
    rows = np.flatnonzero(columns["split"] == "train")
    return torch.from_numpy(store.images(rows)), columns["label"][rows].astype(int)


def plain_outputs(record, spec, work, images) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of the kept weights in the plain classifier."""
    method = Method()
    method.card = work.plugins.method("baseline_resnet").card
    method.ctx = Context(classes=tuple("abcd"), counts=np.array(COUNTS), image_shape=(1, 16, 16), seed=0, epochs=1,
                         batch_size=16, device=torch.device("cpu"), recipe={})  # fmt: skip
    model = build_model(spec, method, set_up(spec, work.runtime), pretrained=False, use_compile=False)
    model.load_state_dict(kept(record)["model"])
    found = predict(method, model, images, spec.recipe, features=True)
    return found.logits, found.features


# -- stages -----------------------------------------------------------------------------------------------------------


CRT = """
def stages(self):
    return [Stage(name="first"), Stage(name="second", epochs=3, freeze=("trunk",), reinit=("head",), lr_scale=0.5)]

def streams(self, stage):
    return {"main": StreamSpec(sampler=shuffle if stage.name == "first" else balanced)}

def on_stage_start(self, stage, model, view):
    SEEN["start"].append(copy_of(model))
    SEEN["before"].append(SEEN["last"])
    self.stage = stage.name

def grad_hook(self, model):
    SEEN["trunk gradients " + self.stage].append(sum(p.grad is not None for p in model.trunk.parameters()))

def on_step_end(self, model, batch, loss):
    SEEN["labels " + self.stage] += batch.y.tolist()
    SEEN["last"] = copy_of(model)
"""

BALANCED = """
def balanced(view, epoch, rng):
    weight = 1.0 / view.counts[view.labels]
    return rng.choice(len(view), len(view), p=weight / weight.sum())
"""


def test_two_gradient_stages_freeze_the_trunk_and_start_the_head_anew(carry_out):
    record, noted = carry_out(CRT, before=BALANCED, recipe={"epochs": 2, "clip_norm": 0.01})
    start, end, before = noted["start"][1], kept(record)["model"], noted["before"][1]
    trunk = [k for k in start if k.startswith("trunk.")]
    assert any("running_mean" in k for k in trunk)
    assert all(torch.equal(start[k], before[k]) for k in trunk), "re-initialising the head leaves the trunk alone"
    assert all(torch.equal(start[k], end[k]) for k in trunk), "weights and BatchNorm statistics are frozen"
    assert not torch.equal(start["head.weight"], before["head.weight"])
    assert start["head.weight"].abs().max() <= 1 / np.sqrt(128), "torch's own initialisation of a linear layer"
    assert not torch.equal(start["head.weight"], end["head.weight"])
    assert set(noted["trunk gradients second"]) == {0}, "a frozen part's old gradients would count in the clipped norm"
    assert min(noted["trunk gradients first"]) > 0


def test_each_stage_has_its_own_sampler_length_and_learning_rate(carry_out):
    record, noted = carry_out(CRT, before=BALANCED, recipe={"epochs": 2, "schedule": "constant"})
    first, second = (np.bincount(noted[f"labels {s}"], minlength=4) for s in ("first", "second"))
    assert first.tolist() == [2 * c for c in COUNTS]
    assert second.sum() == 3 * 96
    assert np.abs(second / second.sum() - 0.25).max() < 0.1
    history = record.json("history")
    assert [h["stage"] for h in history] == ["first"] * 2 + ["second"] * 3
    assert [h["epoch"] for h in history] == [0, 1, 2, 3, 4]
    assert history[1]["lr"] == pytest.approx(4e-3)
    assert history[4]["lr"] == pytest.approx(2e-3)
    assert record.json("selection")["candidates"] == [2, 3, 4], "an epoch of the first stage can't be selected"


def test_a_share_of_the_recipes_epochs_is_rounded_to_at_least_one(carry_out):
    hooks = 'def stages(self):\n    return [Stage(name="a", epochs=0.1), Stage(name="b", epochs=0.5)]\n'
    record, _ = carry_out(hooks, recipe={"epochs": 4})
    assert [h["stage"] for h in record.json("history")] == ["a", "b", "b"]


def test_resample_stage_replaces_the_fold_by_an_index(carry_out):
    hooks = """
    def stages(self):
        return [Stage(name="pick", kind="resample"), Stage()]

    def resample(self, stage, view):
        n = view.counts.min()
        return Resampled(index=np.concatenate([np.flatnonzero(view.labels == c)[:n] for c in range(4)]))

    def on_stage_start(self, stage, model, view):
        SEEN["counts"].append(view.counts.tolist())
        SEEN["of the fold"].append(self.ctx.counts.tolist())

    def on_step_end(self, model, batch, loss):
        SEEN["labels"] += batch.y.tolist()
    """
    _, noted = carry_out(hooks)
    assert noted["counts"] == [[8, 8, 8, 8]]
    assert noted["of the fold"] == [COUNTS], "the context keeps telling the fold's own counts"
    assert np.bincount(noted["labels"]).tolist() == [16] * 4


SMOTE = """
def stages(self):
    return [Stage(name="smote", kind="resample"), Stage()]

def resample(self, stage, view):
    from imblearn.over_sampling import SMOTE
    SEEN["resampled"].append(len(view))
    flat = view.images.flatten(1).numpy().astype(np.float32)
    x, y = SMOTE(k_neighbors=3, random_state=0).fit_resample(flat, view.labels)
    images = torch.from_numpy(x.round().clip(0, 255).astype(np.uint8)).reshape(-1, *view.images.shape[1:])
    return Resampled(images=images, labels=y)

def on_stage_start(self, stage, model, view):
    SEEN["view"].append(view)
"""


def test_resample_stage_replaces_the_fold_by_new_images_and_a_resume_does_not_draw_them_again(
    with_method, tiny_run, interrupt_after, noted_by
):
    work, spec = with_method(SMOTE), tiny_run("own", recipe={"epochs": 2})
    interrupt_after(0, spec, work)
    record = execute(spec, work)
    noted = noted_by(work)
    images, labels = train_fold(record)
    assert noted["resampled"] == [96]
    assert len(noted["view"]) == 2
    for view in noted["view"]:
        assert view.counts.tolist() == [48] * 4
        assert view.images.dtype == torch.uint8
        assert torch.equal(view.images[:96], images)
        assert (view.labels[:96] == labels).all()
    made, rare = noted["view"][1].images[96:].float(), noted["view"][1].labels[96:]
    between = images[labels == 3].float()
    assert (made[rare == 3] >= between.min(0).values - 1).all()
    assert (made[rare == 3] <= between.max(0).values + 1).all()


def test_generate_stage_reads_the_trained_model(carry_out):
    hooks = """
    def stages(self):
        return [Stage(name="first", epochs=12), Stage(name="make", kind="generate"), Stage(name="second", epochs=1)]

    def generate(self, stage, model, view):
        SEEN["model"].append(copy_of(model))
        model.eval()
        with torch.no_grad():
            right = model((view.images.float() / 255 - 0.5) / 0.25).logits.argmax(1).numpy() == view.labels
        SEEN["right"].append(right.mean())
        rare = view.images[torch.from_numpy(view.labels == 3)]
        return Resampled(images=torch.cat([view.images, rare.flip(-1)]), labels=np.append(view.labels, [3] * len(rare)))

    def on_stage_start(self, stage, model, view):
        SEEN["counts"].append(view.counts.tolist())

    def on_step_end(self, model, batch, loss):
        SEEN["last"] = copy_of(model) if batch.epoch == 11 else SEEN["last"]
    """
    _, noted = carry_out(hooks)
    assert noted["counts"] == [COUNTS, [48, 24, 16, 16]]
    assert noted["right"][0] > 0.8, "images are in the order of the labels, and the model has learnt"
    assert all(torch.equal(noted["model"][0][k], v) for k, v in noted["last"].items())


# -- read-out ---------------------------------------------------------------------------------------------------------


TAU_NORM = """
def fit_posthoc(self, model, val):
    w = model.head.weight.detach().numpy()
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    def recall(tau):
        right = (val.features @ (w / norm**tau).T).argmax(1) == val.labels
        return np.mean([right[val.labels == c].mean() for c in range(4)])
    self.tau = max((0.0, 0.5, 1.0, 2.0), key=recall)
    self.weight = w / norm**self.tau

def adjust(self, logits, features):
    return features @ self.weight.T

def state_dict(self):
    return {"tau": getattr(self, "tau", None), "weight": getattr(self, "weight", None)}

def load_state_dict(self, state):
    self.tau, self.weight = state["tau"], state["weight"]
"""


def test_posthoc_readout_is_fitted_on_validation_and_applied_to_test(with_method, tiny_run):
    work, spec = with_method(TAU_NORM), tiny_run("own")
    record = execute(spec, work)
    state = kept(record)
    w, tau = state["model"]["head.weight"].numpy(), state["method"]["tau"]
    scaled = w / np.linalg.norm(w, axis=1, keepdims=True) ** tau
    assert tau in (0.0, 0.5, 1.0, 2.0)
    for role in ("val", "test"):
        _, features = plain_outputs(record, spec, work, pixels(record, role))
        np.testing.assert_allclose(record.array(f"{role}_logits"), features @ scaled.T, rtol=1e-5, atol=1e-6)
    assert not record.json("probe")["transductive"]


def test_logit_adjustment_without_fitting_shifts_logits_by_exactly_the_prior(with_method, tiny_run):
    hooks = "def adjust(self, logits, features):\n    return logits - np.log(self.ctx.counts / self.ctx.counts.sum())\n"
    work = with_method(hooks)
    adjusted, plain = (execute(tiny_run(m, recipe={"epochs": 2}), work) for m in ("own", "baseline_resnet"))
    shift = adjusted.array("test_logits") - plain.array("test_logits")
    expected = -np.log(np.array(COUNTS) / 96)
    np.testing.assert_allclose(shift, np.tile(expected, (48, 1)), atol=1e-6)
    assert adjusted.json("selection") == plain.json("selection")


def test_predict_may_average_an_image_with_its_mirror(with_method, tiny_run):
    hooks = """
    def predict(self, model, x):
        return Output(logits=(model(x).logits + model(x.flip(-1)).logits) / 2)
    """
    work, spec = with_method(hooks), tiny_run("own", recipe={"epochs": 2})
    record = execute(spec, work)
    images = pixels(record, "test")
    one, other = (plain_outputs(record, spec, work, i)[0] for i in (images, images.flip(-1)))
    np.testing.assert_allclose(record.array("test_logits"), (one + other) / 2, atol=1e-5)


def test_before_eval_reads_the_clean_training_fold_in_order(with_method, tiny_run, noted_by):
    """A nearest-class-mean read-out: class means of training features, cosine similarity."""
    hooks = """
    def before_eval(self, model, batches):
        model.eval()
        sums = torch.zeros(4, 128)
        for batch in batches():
            SEEN["index"].append(batch.index)
            SEEN["x"].append(batch.x)
            with torch.no_grad():
                sums.index_add_(0, batch.y, F.normalize(model(batch.x).features))
        self.means = F.normalize(sums / torch.tensor(self.ctx.counts)[:, None])

    def predict(self, model, x):
        return Output(logits=F.normalize(model(x).features) @ self.means.T)

    def state_dict(self):
        return {"means": getattr(self, "means", None)}

    def load_state_dict(self, state):
        self.means = state["means"]
    """
    work, spec = with_method(hooks), tiny_run("own", recipe={"epochs": 2})
    record = execute(spec, work)
    noted, (images, labels) = noted_by(work), train_fold(record)
    assert torch.equal(noted["index"][0], torch.arange(96))
    torch.testing.assert_close(noted["x"][0], prepare(images, 0))
    features = F.normalize(torch.from_numpy(plain_outputs(record, spec, work, images)[1]))
    means = F.normalize(torch.stack([features[labels == c].mean(0) for c in range(4)]))
    test = F.normalize(torch.from_numpy(plain_outputs(record, spec, work, pixels(record, "test"))[1]))
    np.testing.assert_allclose(record.array("test_logits"), test @ means.T, atol=1e-5)


# -- estimators -------------------------------------------------------------------------------------------------------


def test_estimator_stage_is_fitted_on_features_of_the_trained_network(with_method, tiny_run, noted_by):
    hooks = """
    def stages(self):
        return [Stage(), Stage(name="regression", kind="estimator")]

    def fit_estimator(self, features, labels):
        from sklearn.linear_model import LogisticRegression
        self.estimator = LogisticRegression(max_iter=500).fit(features, labels)
        SEEN["labels"].append(labels)

    def predict_estimator(self, features):
        return self.estimator.decision_function(features)

    def state_dict(self):
        return {"estimator": getattr(self, "estimator", None)}

    def load_state_dict(self, state):
        self.estimator = state["estimator"]
    """
    from sklearn.linear_model import LogisticRegression

    work, spec = with_method(hooks), tiny_run("own", recipe={"epochs": 2})
    record = execute(spec, work)
    images, labels = train_fold(record)
    assert (noted_by(work)["labels"][0] == labels).all()
    by_hand = LogisticRegression(max_iter=500).fit(plain_outputs(record, spec, work, images)[1], labels)
    test = plain_outputs(record, spec, work, pixels(record, "test"))[1]
    np.testing.assert_allclose(record.array("test_logits"), by_hand.decision_function(test), atol=1e-3)
    history = record.json("history")
    assert [h["stage"] for h in history] == ["train", "train", "regression"]
    assert history[2]["lr"] is None
    assert record.json("selection")["candidates"] == [2]


def test_a_classical_method_needs_no_network(carry_out):
    hooks = """
    def stages(self):
        return [Stage(name="fit", kind="estimator")]

    def build_model(self, backbone):
        return nn.Identity()

    def extract(self, model, x):
        return F.avg_pool2d(x, 4).flatten(1)  # stands for HOG: a descriptor of 4x4 cells

    def fit_estimator(self, features, labels):
        from sklearn.neighbors import NearestCentroid
        self.means = NearestCentroid().fit(features, labels).centroids_

    def predict_estimator(self, features):
        return -np.linalg.norm(features[:, None] - self.means[None], axis=2)

    def state_dict(self):
        return {"means": getattr(self, "means", None)}

    def load_state_dict(self, state):
        self.means = state["means"]
    """
    record, _ = carry_out(hooks)
    (images, labels), test = train_fold(record), pixels(record, "test")

    def cells(images):
        return prepare(images, 0).reshape(-1, 4, 4, 4, 4).mean(dim=(2, 4)).flatten(1).numpy()

    means = np.stack([cells(images)[labels == c].mean(0) for c in range(4)])
    distance = np.linalg.norm(cells(test)[:, None] - means[None], axis=2)
    np.testing.assert_allclose(record.array("test_logits"), -distance, atol=1e-4)
    assert (distance.argmin(1) == record.array("test_labels")).mean() > 0.95
    assert len(record.json("history")) == 1


def test_multi_expert_model_trains_each_expert_and_predicts_their_mean(with_method, tiny_run):
    before = """
    class Experts(nn.Module):
        def __init__(self, trunk, classes):
            super().__init__()
            self.trunk = trunk
            self.heads = nn.ModuleList(nn.Linear(trunk.num_features, classes) for _ in range(3))

        def forward(self, x):
            fmap, features = self.trunk(x)
            each = torch.stack([head(features) for head in self.heads], dim=1)
            return Output(logits=each.mean(1), features=features, extra={"expert_logits": each})
    """
    hooks = """
    def build_model(self, backbone):
        return Experts(backbone(), self.ctx.num_classes)

    def training_step(self, model, batch):
        output = model(batch.x)
        each = output.extra["expert_logits"]
        shift = torch.stack([k * self.ctx.prior.log() for k in (0, 1, 2)])  # SADE: long-tailed, uniform, inverse
        loss = sum(F.cross_entropy(each[:, k] + shift[k], batch.target) for k in range(3))
        return LossOut(total=loss, output=output)
    """
    work, spec = with_method(hooks, before=before), tiny_run("own", recipe={"epochs": 2})
    record = execute(spec, work)
    state = kept(record)["model"]
    assert [tuple(state[f"heads.{k}.weight"].shape) for k in range(3)] == [(4, 128)] * 3
    assert not torch.equal(state["heads.0.weight"], state["heads.2.weight"])
    mean = {"head.weight": 0, "head.bias": 0}
    for name in mean:
        mean[name] = sum(state[f"heads.{k}.{name[5:]}"] for k in range(3)) / 3
    plain = {k: v for k, v in state.items() if k.startswith("trunk.")} | mean
    save_plain(record.path / "model.pt", {"model": plain, "method": {}})
    logits, _ = plain_outputs(record, spec, work, pixels(record, "test"))
    np.testing.assert_allclose(record.array("test_logits"), logits, atol=1e-5)
