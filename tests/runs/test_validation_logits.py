"""The validation logits of a record: those with which the chosen epoch was scored, and those that its weights give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_bench.conformance.world import RECIPE, World
from fer_bench.contract.plugins import plugins
from fer_bench.runs.worker import read_out
from fer_bench.stats.confusion import confusion_matrix, recalls
from fer_bench.training.checkpoint import load_model
from fer_bench.training.evaluate import predict
from fer_bench.training.fit import fit
from fer_bench.training.job import logits_file, snapshot_file

CHOSEN = {"epoch": 0, "candidates": [0, 1]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs with averaged weights, and what became of them."""
    torch.set_num_threads(1)
    available = plugins()
    folder = tmp_path_factory.mktemp("trained")
    world = World(plugin=available.method("baseline_resnet"), plugins=available, folder=folder)
    job = world.job(world.fold(), recipe=replace(RECIPE, ema_decay=0.9), keeps=lambda epoch: True)
    return job, fit(job)


def predicted_anew(job):
    load_model(snapshot_file(job.work, 0), job.model, job.method, job.ctx.device)
    return predict(job.method, job.model, job.val.images, job.recipe).logits


@pytest.mark.training
@pytest.mark.slow
def test_they_are_those_of_the_chosen_epochs_weights_and_of_its_scores(trained):
    job, progress = trained
    logits = read_out(job, CHOSEN, every=True)
    assert logits.dtype == np.float32
    assert np.array_equal(logits, predicted_anew(job))
    matrix = confusion_matrix(job.val.labels, logits.argmax(1), job.ctx.num_classes)
    assert recalls(matrix).tolist() == progress.history[0]["val_recall"]


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"damaged"])
def test_they_are_predicted_where_an_earlier_version_kept_none(trained, content):
    job, _ = trained
    file = logits_file(job.work, 0)
    kept = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    try:
        assert np.array_equal(read_out(job, CHOSEN, every=True), predicted_anew(job))
    finally:
        file.write_bytes(kept)
