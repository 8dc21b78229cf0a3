"""What a method costs beside plain cross-entropy: bytes are exact, and times are of the right stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fer_bench.conformance.check import find
from fer_bench.conformance.cost import cost
from fer_bench.conformance.promise import DoesNotApply

HEAD = """
import torch
from torch import nn
from fer_bench import LossOut, Method, MethodCard, Stage

card = MethodCard(name="own", title="Own", changes="costs something")

class Own(Method):
    card = card
"""


def cost_of(folder: Path, body: str):
    path = folder / "own.py"
    path.write_text(HEAD + body)
    torch.set_num_threads(1)
    (plugin,), available = find(path)
    return cost(plugin, available, rounds=1)


def test_plain_cross_entropy_keeps_what_plain_cross_entropy_keeps(tmp_path):
    found = cost_of(tmp_path, "    pass\n")
    assert (found.kept, found.weights, found.state) == (1.0, 1.0, 0)
    assert found.time > 0


def test_two_passes_keep_twice_and_a_queue_counts_as_state(tmp_path):
    body = """
    def training_step(self, model, batch):
        outputs = [model(batch.x), model(batch.x.flip(-1))]
        return LossOut(total=sum(self.batch_loss(o, batch) for o in outputs), output=outputs[0])

    def state_dict(self):
        return {"queue": torch.zeros(10, 3), "steps": 4, "name": "abc"}

    def load_state_dict(self, state):
        pass
"""
    found = cost_of(tmp_path, body)
    assert found.kept == pytest.approx(2.0, abs=0.05)
    assert found.state == 10 * 3 * 4 + 8 + 3


def test_weights_count_parameters_and_buffers(tmp_path):
    body = """
    def build_model(self, backbone):
        model = super().build_model(backbone)
        model.more = nn.Parameter(torch.zeros(sum(v.numel() for v in model.state_dict().values())))
        return model
"""
    assert cost_of(tmp_path, body).weights == 2.0


def test_a_method_without_steps_has_no_cost(tmp_path):
    body = """
    def stages(self):
        return [Stage(kind="estimator")]
"""
    with pytest.raises(DoesNotApply, match="gradient descent"):
        cost_of(tmp_path, body)
