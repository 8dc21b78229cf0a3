import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import setuptools  # noqa: F401  used by torch.compile; wants to be imported before anything imports distutils
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench.contract.backbones import Classifier, Trunk, build_trunk
from fer_bench.contract.batch import Batch
from fer_bench.contract.method import Method, Stage
from fer_bench.errors import UnknownNameError, WeightsError
from fer_bench.runs.executor import execute
from fer_bench.runs.spec import Selection
from fer_bench.runs.worker import select
from fer_bench.stats.confusion import SCORES, confusion_matrix
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.fit import _smooth, candidates, has_estimator
from fer_bench.training.job import Runtime
from fer_bench.training.optim import Ema, decay_groups, learning_rate, ungrouped
from fer_bench.training.recipe import Recipe

EXACT = {"epochs": 1, "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0.0, "clip_norm": 0.0}


def kept(record):
    return load_plain(record.path / "model.pt")


def equal(one, other):
    return all(torch.equal(one[k], other[k]) for k in one)


# -- schedule, optimiser, average ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0.0, 0.01),  # the very first step is not lost
        (1.0, 0.5),
        (1.9, 0.95),
        (2.0, 1.0),
        (4.0, (1 + math.sqrt(0.5)) / 2),  # a quarter of the way down: cos(45°)
        (6.0, 0.5),
        (8.0, (1 - math.sqrt(0.5)) / 2),
        (10.0, 0.0),
    ],
)
def test_learning_rate_warms_up_linearly_and_comes_down_as_a_cosine(at, expected):
    recipe = Recipe(epochs=10, lr=1.0, warmup_epochs=2.0)
    assert learning_rate(recipe, Stage(), at, 10) == pytest.approx(expected, abs=1e-12)
    assert learning_rate(recipe, Stage(lr_scale=0.1), at, 10) == pytest.approx(expected / 10, abs=1e-12)


def test_weights_that_no_group_of_the_optimiser_holds_are_found():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD([{"params": [model[0].bias]}, {"params": [model[1].weight]}], lr=0.1)
    left_out = ungrouped(model, optimizer)
    assert [id(p) for p in left_out] == [id(model[0].weight), id(model[1].bias)]


def test_constant_schedule_stays_at_its_peak():
    recipe = Recipe(epochs=10, lr=0.3, warmup_epochs=0.0, schedule="constant")
    assert [learning_rate(recipe, Stage(), at, 10) for at in (0, 3.3, 9.9)] == [0.3] * 3


def test_linear_schedule_is_a_triangle():
    recipe = Recipe(epochs=10, lr=0.8, warmup_epochs=2.0, schedule="linear")
    rates = [learning_rate(recipe, Stage(), at, 10) for at in (1, 2, 4, 8, 10)]
    assert rates == pytest.approx([0.4, 0.8, 0.6, 0.2, 0.0], abs=1e-12)


def test_warm_up_takes_at_most_a_fifth_of_a_short_stage():
    recipe = Recipe(epochs=100, lr=1.0, warmup_epochs=5.0)
    assert learning_rate(recipe, Stage(), 0.5, 5) == pytest.approx(0.5)
    assert learning_rate(recipe, Stage(), 1.0, 5) == 1.0


def test_average_of_weights_by_hand():
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0), model.bias.fill_(-2.0)
    ema = Ema(model, 0.2)
    w, b = 1.0, -2.0
    for step, (new_w, new_b) in enumerate([(3.0, 0.0), (5.0, 1.0), (-1.0, 4.0)], start=1):
        with torch.no_grad():
            model.weight.fill_(new_w), model.bias.fill_(new_b)
        ema.update(model)
        decay = min(0.2, (1 + step) / (10 + step))  # 2/11, then 0.2
        w, b = decay * w + (1 - decay) * new_w, decay * b + (1 - decay) * new_b
        assert ema.model.weight.item() == pytest.approx(w, rel=1e-6)
        assert ema.model.bias.item() == pytest.approx(b, rel=1e-6)
    assert model.weight.item() == -1.0


def test_average_copies_buffers():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, 0.9)
    model(torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
    ema.update(model)
    assert torch.equal(ema.model.running_mean, model.running_mean)
    assert ema.model.num_batches_tracked == 1


def test_the_average_is_what_is_evaluated_and_kept(carry_out):
    hooks = """
    def on_fit_start(self, model, view):
        SEEN["weights"].append(model.head.weight.detach().clone())

    def on_step_end(self, model, batch, loss):
        SEEN["weights"].append(model.head.weight.detach().clone())
    """
    record, noted = carry_out(hooks, recipe={"epochs": 2, "ema_decay": 0.5})
    average = noted["weights"][0].double()
    after = []
    for step, weight in enumerate(noted["weights"][1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight.double()
        after.append(average)
    epoch = record.json("selection")["epoch"]
    torch.testing.assert_close(
        kept(record)["model"]["head.weight"].double(), after[6 * epoch + 5], rtol=1e-5, atol=1e-6
    )


def test_a_stage_that_predicts_no_classes_has_no_accuracy(carry_out):
    hooks = """
    def stages(self):
        return [Stage(name="first", epochs=1), Stage(name="second", epochs=1)]

    def training_step(self, model, batch):
        if self.moment[0] == "first":
            return LossOut(total=model(batch.x).features.square().mean())
        return Method.training_step(self, model, batch)
    """
    first, second = carry_out(hooks)[0].json("history")
    assert "train_accuracy" not in first
    assert first["train_loss"] > 0
    assert 0 <= second["train_accuracy"] <= 1


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_label_smoothing_is_torchs(share):
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(16, 7, generator=g), torch.randint(0, 7, (16,), generator=g)
    batch = Batch(views=[z], y=y, index=y, generator=g, aux={"other": Batch(views=[z], y=y, index=y, generator=g)})
    smoothed = _smooth(batch, share, 7)
    expected = F.cross_entropy(z, y, label_smoothing=share)
    for soft in (smoothed.target, smoothed.aux["other"].target):
        torch.testing.assert_close(F.cross_entropy(z, soft), expected)
    assert torch.equal(smoothed.soft, F.one_hot(y, 7).float()), "the label stays readable"
    assert torch.equal(smoothed.soft_target(7), smoothed.soft)
    assert batch.soft is None
    assert batch.aux["other"].soft is None


def test_a_training_step_that_mixes_smoothed_batches_smooths_them_once():
    y = torch.tensor([0, 1])
    smoothed = _smooth(Batch(views=[], y=y, index=y, generator=torch.Generator()), 0.3, 3)
    mixed = smoothed.with_(soft=0.75 * smoothed.soft_target(3) + 0.25 * smoothed.soft_target(3)[[1, 0]])
    expected = [[0.7 * 0.75 + 0.1, 0.7 * 0.25 + 0.1, 0.1], [0.7 * 0.25 + 0.1, 0.7 * 0.75 + 0.1, 0.1]]
    torch.testing.assert_close(mixed.target, torch.tensor(expected))


def test_gradients_are_clipped_to_the_norm_after_the_hook(carry_out):
    hooks = """
    def grad_hook(self, model):
        for p in model.parameters():
            p.grad = torch.full_like(p, 3.0)

    def on_step_end(self, model, batch, loss):
        SEEN["norm"].append(torch.stack([p.grad.norm() for p in model.parameters()]).norm().item())
    """
    _, noted = carry_out(hooks, recipe={"epochs": 1, "clip_norm": 0.7})
    np.testing.assert_allclose(noted["norm"], 0.7, rtol=1e-4)


def test_gradients_of_weights_in_no_group_do_not_pile_up_in_the_norm(carry_out):
    hooks = """
    def param_groups(self, model, stage):
        return [{"params": list(model.head.parameters())}]

    def grad_hook(self, model):
        SEEN["norm"].append(model.trunk.body.conv1.weight.grad.norm().item())
    """
    _, noted = carry_out(hooks, recipe={"epochs": 8, "lr": 1e-7})
    assert max(noted["norm"]) < 4 * min(noted["norm"]), "48 summed gradients would be far larger than one"


def test_weights_decay_and_biases_norms_and_frozen_parts_do_not():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 2))
    model[4].requires_grad_(False)
    decayed, plain = decay_groups(model, 0.3)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    rest = (model[0].bias, model[1].weight, model[1].bias, model[3].bias)
    assert {id(p) for p in plain["params"]} == {id(p) for p in rest}


def test_one_step_of_sgd_by_hand(carry_out):
    hooks = """
    def on_batch(self, batch):
        return batch.with_(views=[batch.x[:4]], y=batch.y[:4])

    def training_step(self, model, batch):
        output = model(batch.x)
        SEEN["head"].append((model.head.weight.detach().clone(), output.features.detach().clone(),
                             output.logits.detach().clone(), batch.y))
        return LossOut(total=self.criterion(output, batch.target), output=output)

    def on_step_end(self, model, batch, loss):
        SEEN["after"].append(model.head.weight.detach().clone())
    """
    _, noted = carry_out(hooks, recipe=EXACT | {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1})
    for (w, f, z, y), after in zip(noted["head"], noted["after"], strict=True):
        gradient = (z.softmax(1) - F.one_hot(y, 4)).T @ f / 4
        torch.testing.assert_close(after, w - 0.1 * gradient, rtol=1e-4, atol=1e-6)


# -- selection and the record ----------------------------------------------------------------------------------------


def chosen_by(rule, metric, recalls, accuracies, stages=None):
    method = Method()
    method.stages = lambda: stages or [Stage()]
    history = [{"val_mean_recall": r, "val_accuracy": a} for r, a in zip(recalls, accuracies, strict=True)]
    recipe = Recipe(epochs=len(history) if stages is None else 2)
    spec = SimpleNamespace(selection=Selection(rule=rule, metric=metric))
    job = SimpleNamespace(method=method, recipe=recipe)
    return select(spec, job, SimpleNamespace(epoch=len(history), history=history))


def test_selection_takes_the_first_of_the_best_epochs_on_validation():
    recalls, accuracies = [0.1, 0.5, 0.5, 0.4], [0.2, 0.3, 0.4, 0.6]
    chosen = chosen_by("val", "mean_recall", recalls, accuracies)
    assert (chosen["epoch"], chosen["value"], chosen["candidates"]) == (1, 0.5, [0, 1, 2, 3])
    assert chosen_by("val", "accuracy", recalls, accuracies)["epoch"] == 3
    last = chosen_by("last", "mean_recall", recalls, accuracies)
    assert (last["epoch"], last["value"]) == (3, 0.4)


def test_selection_looks_at_the_last_gradient_stage_only():
    stages = [Stage(name="a"), Stage(name="b")]
    chosen = chosen_by("val", "mean_recall", [0.9, 0.8, 0.1, 0.2], [0.0] * 4, stages)
    assert (chosen["epoch"], chosen["candidates"]) == (3, [2, 3])


def test_the_last_thing_trained_decides_who_predicts():
    gradient, estimator, resample = Stage(), Stage(kind="estimator"), Stage(kind="resample")
    assert has_estimator([gradient, estimator])
    assert has_estimator([gradient, resample, estimator])
    assert not has_estimator([estimator, gradient])
    assert not has_estimator([resample, gradient])
    assert candidates([gradient, estimator], Recipe(epochs=4), 5) == [4]
    assert candidates([gradient, Stage(epochs=2)], Recipe(epochs=4), 6) == [4, 5]


def test_honest_and_oracle_arrays_agree_at_the_selected_epoch(workplace, tiny_run):
    record = execute(tiny_run(), workplace)
    chosen, history = record.json("selection"), record.json("history")
    place = chosen["candidates"].index(chosen["epoch"])
    for role in ("val", "test"):
        logits, epochs = record.array(f"{role}_logits"), record.array(f"{role}_epochs")
        assert epochs.shape == (3, len(logits))
        assert (epochs[place] == logits.argmax(1)).all()
        assert logits.dtype == np.float32
    for epoch, entry in enumerate(history):
        matrix = confusion_matrix(record.array("val_labels"), record.array("val_epochs")[epoch], 4)
        for name, score in SCORES.items():
            assert entry[f"val_{name}"] == pytest.approx(score(matrix))
    assert chosen["value"] == max(h["val_mean_recall"] for h in history)


def test_the_same_seed_gives_bitwise_the_same_weights_and_another_does_not(workplace, tiny_run):
    spec = tiny_run(recipe={"epochs": 2})
    record = execute(spec, workplace)
    first = kept(record)["model"]
    (record.path / "done.json").unlink()
    again = execute(spec, workplace)
    assert again.json("timing")["resumed"] == 0
    assert equal(first, kept(again)["model"])
    assert not equal(first, kept(execute(replace(spec, seed=1), workplace))["model"])


# -- precision, compilation, backbones -------------------------------------------------------------------------------


def test_bf16_trains_near_fp32_and_keeps_logits_free_of_ties(workplace, tiny_run):
    half, full = (execute(tiny_run(recipe={"epochs": 1, "precision": p}), workplace) for p in ("bf16", "fp32"))
    losses = [r.json("history")[0]["train_loss"] for r in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    logits = np.sort(half.array("test_logits"), axis=1)
    assert np.isfinite(logits).all()
    assert (logits[:, -1] > logits[:, -2]).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_trunk_gives_nearly_the_same_losses(workplace, tiny_run, in_process, monkeypatch):
    compiled, real = [], Trunk.compile_features
    monkeypatch.setattr(Trunk, "compile_features", lambda self: (compiled.append(self), real(self)))
    spec, losses = tiny_run(recipe={"epochs": 1, "ema_decay": 0.5}), []
    for flag in (False, True):
        record = execute(spec, replace(workplace, runtime=Runtime(device="cpu", compile=flag)))
        losses.append([record.json("history")[0][k] for k in ("train_loss", "val_loss")])
        assert set(kept(record)["model"]) == set(Classifier(build("resnet10_tiny"), 4).state_dict())
        (record.path / "done.json").unlink()
    assert len(compiled) == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def build(name, image_size=32):
    return build_trunk(name, in_chans=1, image_size=image_size)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"])
def test_any_timm_backbone_trains(workplace, tiny_run, name):
    spec = tiny_run(backbone=name, recipe={"epochs": 1, "image_size": 32, "batch_size": 32})
    record = execute(spec, workplace)
    assert record.array("test_logits").shape == (48, 4)
    assert not record.json("probe")["transductive"]
    weight = kept(record)["model"]["head.weight"]
    assert weight.shape == (4, build(name).num_features)


def test_trunk_pools_its_own_map():
    trunk = build("resnet10_tiny").eval()
    fmap, features = trunk(torch.randn(2, 1, 32, 32))
    assert fmap.shape == (2, 128, 2, 2)
    torch.testing.assert_close(features, fmap.mean((2, 3)))


def test_small_resnets_keep_an_eighth_of_the_side():
    trunk = build("resnet18_small", 48)
    fmap, _ = trunk(torch.randn(1, 1, 48, 48))
    assert fmap.shape == (1, 512, 6, 6)
    assert sum(p.numel() for p in trunk.parameters()) == pytest.approx(11.2e6, rel=0.01)


def test_an_unknown_backbone_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18_small'"):
        build("resnet18_smal")


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(WeightsError, match="no pretrained weights for 'resnet10_tiny'"):
        build_trunk("resnet10_tiny", in_chans=1, image_size=32, pretrained=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_is_trained_scored_and_probed_by_processes_that_fork(workplace, tiny_run):
    """The server must not have touched CUDA, or no process that it forks could."""
    runtime = Runtime(device="cuda", compile=False)
    records = [execute(tiny_run(seed=s), replace(workplace, runtime=runtime)) for s in (0, 1)]
    for record in records:
        assert record.json("environment")["device"] == "cuda"
        assert record.json("probe")["transductive"] is False
        assert np.isfinite(record.array("test_logits")).all()
