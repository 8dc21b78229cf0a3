"""Killing and resuming: a run that dies at any instant ends in bitwise the same record as one that was left alone."""

from __future__ import annotations

import random

from fer_bench.runs.executor import execute
from tests.runs.conftest import assert_equal_records, record_of

TWO_STAGE = '''
"""Everything a resume could forget: a resampled fold, a frozen trunk, a new head, state, draws from every source."""
import random
import numpy as np
import torch
from fer_bench import Method, MethodCard, Resampled, Stage

card = MethodCard(name="two_stage", title="two stages and a memory")


class TwoStage(Method):
    card = card

    def stages(self):
        return [Stage(name="few", kind="resample"), Stage(name="features", epochs=3),
                Stage(name="head", epochs=3, freeze=("trunk",), reinit=("head",), lr_scale=0.5)]

    def resample(self, stage, view):
        return Resampled(index=torch.randperm(len(view)).numpy()[:80])

    def on_fit_start(self, model, view):
        self.centre, self.steps = torch.zeros(4, 128), 0

    def on_stage_start(self, stage, model, view):
        self.noise = torch.randn(4, 128)

    def on_batch(self, batch):
        drawn = torch.randn(1, generator=batch.generator) + torch.randn(1) + random.random() + np.random.rand()
        return batch.with_(views=[v + 0.05 * drawn for v in batch.views])

    def criterion(self, output, target):
        pull = (output.features - (self.centre + 0.01 * self.noise)[target]).square().mean()
        return super().criterion(output, target) + 0.1 * pull

    def on_step_end(self, model, batch, loss):
        self.steps += 1
        for c in batch.y.unique():
            mean = loss.output.features[batch.y == c].detach().mean(0)
            self.centre[c] += (mean - self.centre[c]) / (1 + self.steps)

    def state_dict(self):
        return {"centre": self.centre, "steps": self.steps}

    def load_state_dict(self, state):
        self.centre, self.steps = state["centre"].clone(), state["steps"]
'''

ESTIMATOR = """
import numpy as np
import torch
from fer_bench import Method, MethodCard, Stage

card = MethodCard(name="estimator", title="random features and a linear fit")


class Estimator(Method):
    card = card

    def stages(self):
        return [Stage(epochs=2), Stage(name="fit", kind="estimator")]

    def fit_estimator(self, features, labels):
        self.mix = (torch.randn(features.shape[1], 40).numpy() + np.random.randn(features.shape[1], 40)).astype("f4")
        self.weights = np.linalg.lstsq(np.tanh(features @ self.mix), np.eye(4)[labels], rcond=None)[0]

    def predict_estimator(self, features):
        return np.tanh(features @ self.mix) @ self.weights

    def state_dict(self):
        return vars(self).get("weights") is not None and {"mix": self.mix, "weights": self.weights} or {}

    def load_state_dict(self, state):
        vars(self).update(state)
"""


def test_ten_kills_at_random_moments_change_no_bit(workplace, copy_of, server, tiny_run):
    card = workplace.plugins.method("rasn").card
    recipe = {"epochs": 8, "ema_decay": 0.9, "drop_rate": 0.2, "flip": 0.5, "erase": 0.3, "label_smoothing": 0.1}
    spec = tiny_run("rasn", params=card.resolve({"share.source": "ema"}), recipe=recipe)
    calm = copy_of("calm")
    whole = server(calm, spec)
    assert whole["said"] == "done"

    draw, kills, homes = random.Random(5), 0, [copy_of("stormy0")]
    assert server(homes[0], spec, at="after checkpoint.pt 1")["killed"]  # so that there is something to resume from
    while kills < 10 or record_of(spec, homes[-1]).status != "finished":
        after = whole["seconds"] * draw.uniform(0.02, 0.3) if kills < 10 else None
        answer = server(homes[-1], spec, after=after)
        record = record_of(spec, homes[-1])
        if answer["killed"] and record.status == "unfinished":
            kills += 1
        elif kills < 10:  # a quick machine: it finished before ten kills, so a new run takes the rest
            assert record.status == "finished", answer
            homes.append(copy_of(f"stormy{len(homes)}"))

    finished = [h for h in homes if record_of(spec, h).status == "finished"]
    assert record_of(spec, homes[0]).json("timing")["resumed"] >= 1
    for home in finished:
        assert_equal_records(record_of(spec, calm), record_of(spec, home))


MOMENTS = (
    "before spec.json 1", "before fold_0.pt 1", "step 1", "before snapshot_0000.pt 1", "after snapshot_0000.pt 1",
    "before checkpoint.pt 2", "after checkpoint.pt 1", "step 2", "step 7",
    "after checkpoint.pt 1", "after selection.json 1", "before trained.json 1", "after trained.json 1",
    "before seal.json 1", "after seal.json 1", "before test_logits.npy 1", "after test_epochs.npy 1",
    "before probe_0_1.npy 1", "before probe.json 1", "after test_labels.npy 1", "before model.pt 1",
    "after timing.json 1", "before done.json 1",
)  # fmt: skip


def test_kills_at_awkward_moments_of_a_two_stage_method_change_no_bit(with_plugins, copy_of, server, tiny_run):
    work = with_plugins(two_stage=TWO_STAGE)
    spec = tiny_run("two_stage", recipe={"drop_rate": 0.2, "ema_decay": 0.9})
    calm, stormy = copy_of("calm", work), copy_of("stormy", work)
    assert server(calm, spec)["said"] == "done"

    for moment in MOMENTS:
        assert server(stormy, spec, at=moment)["killed"], moment
        assert record_of(spec, stormy).status == "unfinished"
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))
    assert not (record_of(spec, stormy).path / "work").exists()


def test_kill_just_after_the_done_mark_leaves_a_finished_run_that_the_next_command_tidies(
    workplace, copy_of, server, tiny_run
):
    spec, killed = tiny_run(recipe={"epochs": 1}), copy_of("killed")
    assert server(killed, spec, at="after done.json 1")["killed"]
    record = record_of(spec, killed)
    assert record.status == "finished"
    assert (record.path / "work").exists()

    execute(spec, killed)

    assert not (record.path / "work").exists()
    record.verify()


def test_kill_before_an_estimator_is_scored_changes_no_bit(with_plugins, copy_of, server, tiny_run):
    work = with_plugins(estimator=ESTIMATOR)
    spec = tiny_run("estimator")
    calm, stormy = copy_of("calm", work), copy_of("stormy", work)
    assert server(calm, spec)["said"] == "done"

    for moment in ("step 8", "before snapshot_0002.pt 1", "after snapshot_0002.pt 1", "before selection.json 1"):
        assert server(stormy, spec, at=moment)["killed"], moment
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))


def test_checkpoints_that_are_far_apart_replay_the_epochs_between(workplace, copy_of, server, tiny_run):
    """Without a checkpoint the run starts again; its snapshots are written over."""
    spec = tiny_run(recipe={"drop_rate": 0.2})
    calm, stormy = copy_of("calm"), copy_of("stormy")
    assert server(calm, spec)["said"] == "done"
    assert server(stormy, spec, at="step 15")["killed"]
    (record_of(spec, stormy).path / "work/checkpoint.pt").unlink()
    assert server(stormy, spec)["said"] == "done"

    assert_equal_records(record_of(spec, calm), record_of(spec, stormy))
