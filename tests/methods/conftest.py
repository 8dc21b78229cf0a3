"""A tiny world for method tests: 7 classes with FER2013's counts, and a narrow ResNet on 24-pixel images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fer_bench.contract.backbones import build_trunk
from fer_bench.contract.batch import Batch, Context, TrainView
from fer_bench.runs import worker
from fer_bench.runs.spec import RunSpec
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.fit import fit
from fer_bench.training.job import Fold, Job, Runtime, snapshot_file
from fer_bench.training.recipe import Recipe

FER2013 = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_context():
    def make(counts=FER2013, image_shape=(1, 48, 48)):
        return Context(
            classes=tuple(f"class{c}" for c in range(len(counts))),
            counts=np.asarray(counts),
            image_shape=image_shape,
            seed=0,
            epochs=2,
            batch_size=4,
            device=torch.device("cpu"),
            recipe={},
        )

    return make


@pytest.fixture
def make_method(make_context):
    """Build a method of a class with some parameters, as the harness does."""

    def make(cls, params=None, **context):
        method = cls(cls.card.resolve(params or {}))
        method.ctx = make_context(**context)
        return method

    return make


@pytest.fixture
def tiny_trunk():
    """A function without arguments that gives the same fresh trunk each time."""

    def make():
        torch.manual_seed(1)
        return build_trunk("resnet10_tiny", in_chans=1, image_size=48)

    return make


@pytest.fixture
def make_batch():
    def make(size=4, side=48, seed=0):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(size, 1, side, side, generator=g)
        y = torch.randint(0, 7, (size,), generator=g)
        return Batch(views=[x], y=y, index=torch.arange(size), generator=g)

    return make


@pytest.fixture
def faces():
    """Grey images uint8 [n, 1, 24, 24] with a bar that tells the class, the later classes rarer: 20, 12, 5 and 3."""

    def make(counts=(20, 12, 5, 3), seed=0):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        images = rng.integers(0, 120, (len(labels), 1, 24, 24))
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * label : 4 * label + 4] += 100
        return torch.from_numpy(images.astype(np.uint8)), labels

    return make


@pytest.fixture
def fit_small(faces, tmp_path):
    """Train a method as a run does, on 40 small images of four classes, through all its stages.

    Returns the method, the model, the weights and the method's state after each epoch, and validation's features,
    labels and scores.
    """

    def fit_method(cls, params=None, counts=(20, 12, 5, 3), **recipe):
        images, labels = faces(counts)
        val_images, val_labels = faces((4,) * len(counts), seed=1)
        usual = {"epochs": 2, "batch_size": 8, "precision": "fp32", "ema_decay": 0.0, "warmup_epochs": 0.0}
        recipe = Recipe(**(usual | recipe))
        spec = RunSpec(method="none", dataset="none", protocol="none", backbone="resnet10_tiny", recipe=recipe, seed=3)
        method = cls(cls.card.resolve(params or {}))
        method.ctx = Context(
            classes=tuple(f"class{c}" for c in range(len(counts))), counts=np.asarray(counts), image_shape=(1, 24, 24),
            seed=3, epochs=recipe.epochs, batch_size=recipe.batch_size, device=torch.device("cpu"),
            recipe=recipe.to_dict(),
        )  # fmt: skip
        model = worker.build_model(spec, method, torch.device("cpu"), pretrained=False, use_compile=False)
        work = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        job = Job(
            method=method, model=model, ctx=method.ctx, recipe=recipe, runtime=Runtime(device="cpu"), work=work,
            view=TrainView(images=images, labels=labels, num_classes=len(counts)),
            val=Fold(images=val_images, labels=val_labels),
        )  # fmt: skip
        progress = fit(job)
        states = [load_plain(snapshot_file(work, epoch)) for epoch in range(progress.epoch)]
        predicted = worker.raw_logits(method, model, val_images, recipe, features=True)
        return SimpleNamespace(
            method=method, model=model, weights=[s["model"] for s in states], states=[s["method"] for s in states],
            logits=predicted[0], features=predicted[1], val_labels=val_labels, view=job.view, history=progress.history,
        )  # fmt: skip

    return fit_method
