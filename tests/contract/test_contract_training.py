"""The method contract hosts the harder families of the literature: streams, views, mixing, schedules, state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_bench.contract.batch import Output
from fer_bench.contract.method import Method
from fer_bench.data.store import Store
from fer_bench.runs.executor import execute
from fer_bench.runs.spec import Selection
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.dataplane import prepare

COUNTS = [48, 24, 16, 8]  # of the training fold of `tiny`

BALANCED = """
def balanced(view, epoch, rng):
    weight = 1.0 / view.counts[view.labels]
    return rng.choice(len(view), len(view), p=weight / weight.sum())
"""


def kept(record) -> dict:
    """Weights and method state of the selected epoch."""
    return load_plain(record.path / "model.pt")


def train_fold(record) -> tuple[torch.Tensor, np.ndarray]:
    store = Store.open(record.path.parents[1] / "data" / "tiny")
    columns = store.columns("split", "label")
    rows = np.flatnonzero(columns["split"] == "train")
    return torch.from_numpy(store.images(rows)), columns["label"][rows].astype(int)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_two_streams_with_samplers_and_batch_sizes_of_their_own(carry_out):
    """A bilateral-branch loss: uniform stream beside one that favours the rare, weights moving with the epoch."""
    hooks = """
    def streams(self, stage):
        return {"main": StreamSpec(), "rare": StreamSpec(sampler=balanced, batch_size=8)}

    def on_epoch_start(self, epoch, model):
        self.share = 1 - ((epoch + 1) / self.ctx.epochs) ** 2

    def training_step(self, model, batch):
        rare = batch.aux["rare"]
        SEEN["rare"] += rare.y.tolist()
        SEEN["sizes"].append((len(batch.x), len(rare.x)))
        SEEN["smoothed"].append((batch.target.max().item(), rare.target.max().item()))
        one, other = model(batch.x), model(rare.x)
        a, b = F.cross_entropy(one.logits, batch.target), F.cross_entropy(other.logits, rare.target)
        SEEN["loss"].append((self.share, a.item(), b.item()))
        return LossOut(total=self.share * a + (1 - self.share) * b, output=one)
    """
    record, noted = carry_out(hooks, before=BALANCED, recipe={"epochs": 2, "label_smoothing": 0.1})
    share = np.bincount(noted["rare"], minlength=4) / len(noted["rare"])
    assert set(noted["sizes"]) == {(16, 8)}
    assert np.abs(share - 0.25).max() < 0.12
    np.testing.assert_allclose(noted["smoothed"], 0.925, rtol=1e-6)  # 0.9 + 0.1 / 4 in both streams
    total = [s * a + (1 - s) * b for s, a, b in noted["loss"]]
    losses = [h["train_loss"] for h in record.json("history")]
    np.testing.assert_allclose(losses, np.reshape(total, (2, 6)).mean(1), rtol=1e-6)


def test_patches_from_the_rare_stream_are_pasted_before_the_forward_pass(carry_out):
    hooks = """
    def streams(self, stage):
        return {"main": StreamSpec(augment=Augment()), "rare": StreamSpec(sampler=balanced, augment=Augment())}

    def on_batch(self, batch):
        rare = batch.aux["rare"]
        left = torch.randint(0, 9, (1,), generator=batch.generator).item()
        x = batch.x.clone()
        x[..., left : left + 8] = rare.x[..., left : left + 8]
        soft = 0.5 * F.one_hot(batch.y, 4) + 0.5 * F.one_hot(rare.y, 4)
        SEEN["left"].append(left)
        SEEN["from"].append((batch.index, rare.index))
        return batch.with_(views=[x], soft=soft)

    def training_step(self, model, batch):
        SEEN["x"].append(batch.x)
        return super().training_step(model, batch)
    """
    record, noted = carry_out(hooks, before=BALANCED)
    images = prepare(train_fold(record)[0], 0)
    for left, (index, rare), x in zip(noted["left"], noted["from"], noted["x"], strict=True):
        assert len(index) == len(rare)
        expected = images[index].clone()
        expected[..., left : left + 8] = images[rare][..., left : left + 8]
        torch.testing.assert_close(x, expected)
    assert len(set(noted["left"])) > 1


def test_two_equal_views_without_augmentation_carry_a_flip_consistency(carry_out):
    """Erasing attention consistency: maps of x against the mirrored maps of mirrored x."""
    hooks = """
    def streams(self, stage):
        return {"main": StreamSpec(views=2, augment=Augment())}

    def training_step(self, model, batch):
        one, other = model(batch.views[0]), model(batch.views[1].flip(-1))
        w = model.head.weight.detach()
        maps = [torch.einsum("kd,bdhw->bkhw", w, o.fmap) for o in (one, other)]
        apart = F.mse_loss(maps[0], maps[1].flip(-1))
        SEEN["views"].append((batch.views[0], batch.views[1], batch.index))
        SEEN["apart"].append(apart.item())
        return LossOut(total=F.cross_entropy(one.logits, batch.target) + 5 * apart, output=one)
    """
    record, noted = carry_out(hooks, recipe={"epochs": 8})
    images = prepare(train_fold(record)[0], 0)
    for one, other, index in noted["views"]:
        torch.testing.assert_close(one, images[index])
        assert torch.equal(one, other)
    assert np.mean(noted["apart"][-6:]) > 0
    assert np.isfinite(noted["apart"]).all()


def test_views_are_augmented_independently(carry_out):
    hooks = """
    def streams(self, stage):
        return {"main": StreamSpec(views=3)}

    def training_step(self, model, batch):
        SEEN["views"].append(batch.views)
        return super().training_step(model, batch)
    """
    _, noted = carry_out(hooks)
    for views in noted["views"]:
        assert len(views) == 3
        assert not torch.equal(views[0], views[1])
        assert not torch.equal(views[1], views[2])


def test_soft_targets_of_mixup_replace_hard_ones_and_are_smoothed_afterwards(carry_out):
    hooks = """
    def on_batch(self, batch):
        lam = torch.rand(1, generator=batch.generator).item()
        other = torch.randperm(len(batch.y), generator=batch.generator)
        soft = lam * F.one_hot(batch.y, 4) + (1 - lam) * F.one_hot(batch.y[other], 4)
        SEEN["lam"].append(lam)
        SEEN["mixed"].append(soft)
        return batch.with_(views=[lam * batch.x + (1 - lam) * batch.x[other]], soft=soft)

    def criterion(self, output, target):
        SEEN["target"].append(target)
        return super().criterion(output, target)
    """
    record, noted = carry_out(hooks, recipe={"epochs": 2, "label_smoothing": 0.2})
    for mixed, target in zip(noted["mixed"], noted["target"], strict=True):
        torch.testing.assert_close(target, mixed * 0.8 + 0.05)
        torch.testing.assert_close(target.sum(1), torch.ones(16))
    assert len(set(noted["lam"])) == 12, "every step has draws of its own"
    first, logits = list(noted["lam"]), record.array("test_logits")
    (record.path / "done.json").unlink()
    record, noted = carry_out(hooks, recipe={"epochs": 2, "label_smoothing": 0.2})
    assert noted["lam"] == first * 2, "the same seed gives the same draws"
    assert (record.array("test_logits") == logits).all()


# -- models, optimisers, hooks ----------------------------------------------------------------------------------------


def test_deferred_weights_switch_on_at_their_epoch_counted_over_all_stages(carry_out):
    hooks = """
    def stages(self):
        return [Stage(name="a", epochs=1), Stage(name="b", epochs=3)]

    def on_epoch_start(self, epoch, model):
        late = epoch >= 2
        self.weight = torch.tensor(self.ctx.size / (4 * self.ctx.counts) if late else np.ones(4), dtype=torch.float32)
        SEEN["epoch"].append(epoch)

    def criterion(self, output, target):
        return F.cross_entropy(output.logits, target, reduction="none")

    def image_weights(self, batch):
        SEEN["weight"].append(self.weight.tolist())
        return batch.expected(self.weight)
    """
    _, noted = carry_out(hooks)
    assert noted["epoch"] == [0, 1, 2, 3]
    assert noted["weight"][:12] == [[1, 1, 1, 1]] * 12
    assert noted["weight"][12:] == [[0.5, 1, 1.5, 3]] * 12


def test_own_parameter_groups_scale_the_learning_rate_and_take_the_recipes_decay(carry_out):
    hooks = """
    def param_groups(self, model, stage):
        return [{"params": list(model.trunk.parameters()), "lr_scale": 0.0, "weight_decay": 0.0},
                {"params": list(model.head.parameters()), "lr_scale": 10.0}]

    def on_fit_start(self, model, view):
        SEEN["start"].append(copy_of(model))

    def grad_hook(self, model):
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.5)

    def on_step_end(self, model, batch, loss):
        SEEN["head"].append(model.head.weight.detach().clone())
    """
    recipe = {"epochs": 1, "optimizer": "sgd", "momentum": 0.0, "lr": 0.01, "weight_decay": 0.5, "clip_norm": 0.0}
    record, noted = carry_out(hooks, recipe=recipe | {"schedule": "constant", "warmup_epochs": 0.0})
    start, end = noted["start"][0], kept(record)["model"]
    weights = [k for k in start if k.startswith("trunk.") and "running" not in k and "num_batches" not in k]
    assert all(torch.equal(start[k], end[k]) for k in weights)
    w = start["head.weight"]
    for found in noted["head"]:
        w = w - 0.1 * (0.5 + 0.5 * w)  # lr 0.01 x 10, gradient 0.5, decay 0.5
        torch.testing.assert_close(found, w)


def test_grad_hook_acts_before_the_step(carry_out):
    hooks = """
    def on_fit_start(self, model, view):
        SEEN["start"].append(copy_of(model))

    def grad_hook(self, model):
        model.trunk.body.conv1.weight.grad.zero_()
    """
    record, noted = carry_out(hooks, recipe={"epochs": 1, "weight_decay": 0.0})
    start, end = noted["start"][0], kept(record)["model"]
    assert torch.equal(start["trunk.body.conv1.weight"], end["trunk.body.conv1.weight"])
    assert not torch.equal(start["head.weight"], end["head.weight"])


STATEFUL = """
def on_fit_start(self, model, view):
    self.count, self.queue = torch.zeros(4), torch.zeros(0, 128)

def training_step(self, model, batch):
    output = model(batch.x)
    loss = F.cross_entropy(output.logits + (self.count + 1).log(), batch.target)
    if len(self.queue):
        loss = loss + 0.1 * (F.normalize(output.features) @ F.normalize(self.queue).T).mean()
    return LossOut(total=loss, output=output)

def on_step_end(self, model, batch, loss):
    self.count = self.count + torch.bincount(batch.y, minlength=4)
    self.queue = torch.cat([self.queue, loss.output.features.detach()])[-24:]

def state_dict(self):
    return {"count": self.count, "queue": self.queue}

def load_state_dict(self, state):
    self.count, self.queue = state["count"], state["queue"]
"""


@pytest.mark.parametrize("epoch", [0, 1])
def test_queue_and_running_counts_survive_a_resume_bitwise(with_method, tiny_run, interrupt_after, epoch):
    work = with_method(STATEFUL)
    spec = tiny_run("own", selection=Selection(rule="last"))
    straight = execute(spec, work)
    through = kept(straight)
    (straight.path / "done.json").unlink()
    interrupt_after(epoch, spec, work)
    resumed = kept(execute(spec, work))
    assert through["method"]["count"].tolist() == [3 * c for c in COUNTS]
    assert through["method"]["queue"].shape == (24, 128)
    assert straight.json("timing")["resumed"] == 1
    for part in ("model", "method"):
        assert all(torch.equal(through[part][k], resumed[part][k]) for k in through[part])


# -- what every method gets -------------------------------------------------------------------------------------------


def test_counts_come_from_the_training_fold(carry_out):
    hooks = """
    def on_fit_start(self, model, view):
        SEEN["counts"].append((self.ctx.counts.tolist(), view.counts.tolist(), len(view), self.ctx.size))
        SEEN["prior"].append(self.ctx.prior.tolist())
        SEEN["names"].append(sorted(vars(self.ctx)) + sorted(vars(view)))
    """
    record, noted = carry_out(hooks)
    assert noted["counts"] == [(COUNTS, COUNTS, 96, 96)]
    np.testing.assert_allclose(noted["prior"][0], [1 / 2, 1 / 4, 1 / 6, 1 / 12])
    assert not [n for n in noted["names"][0] if "val" in n or "test" in n]
    assert record.json("seal")["blocked"] == []


def test_a_tiny_fold_is_overfitted(workplace, tiny_run):
    recipe = {"epochs": 15, "flip": 0.0, "shift": 0.0, "rotate": 0.0}
    record = execute(tiny_run("baseline_resnet", recipe=recipe), workplace)
    assert record.json("history")[-1]["train_accuracy"] > 0.9


def test_base_criterion_is_the_same_for_hard_and_one_hot_targets():
    g = torch.Generator().manual_seed(0)
    y, losses, gradients = torch.arange(8) % 4, [], []
    z = torch.randn(8, 4, generator=g)
    for target in (y, F.one_hot(y, 4).float()):
        logits = z.clone().requires_grad_()
        loss = Method().criterion(Output(logits=logits), target)
        loss.backward()
        losses.append(loss.item())
        gradients.append(logits.grad)
    by_hand = -np.mean([z[k, y[k]] - torch.logsumexp(z[k], 0) for k in range(8)])
    assert losses == pytest.approx([by_hand, by_hand], rel=1e-6)
    torch.testing.assert_close(*gradients)
