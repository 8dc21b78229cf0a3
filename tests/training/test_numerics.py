"""Training results and ``NUMERICS``: tiny runs must have the losses that are committed in ``numerics.json``.

Run as a program, this file writes the losses anew. It refuses to do so while ``NUMERICS`` is unchanged,
since other losses under the same number would let old records pass for new ones.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fer_bench import Augment, Batch, Context, LossOut, Method, MethodCard, Output, Stage, StreamSpec, TrainView
from fer_bench.record.ledger import NUMERICS
from fer_bench.runs import worker
from fer_bench.runs.spec import RunSpec
from fer_bench.training import dataplane, evaluate, fit, optim
from fer_bench.training.job import Fold, Job, Runtime
from fer_bench.training.recipe import Recipe

FILE = Path(__file__).with_name("numerics.json")
COMMAND = "python tests/training/test_numerics.py"
pytestmark = [pytest.mark.slow, pytest.mark.training]
CPU = torch.device("cpu")

# Other processors and libraries round sums differently, and training enlarges the difference. With every weight moved
# by 2e-7 of its value after each step, or with other kernels (ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default),
# losses move by up to 1.3e-6 of their value; the smallest change of the harness tried below moves one by 1.1e-3.
TOLERANCE = 5e-5

# No dropout: torch draws its masks from other generators on machines without Intel's library.
# AdamW's first steps follow the sign of a gradient, even of one that is only rounding: its learning rate is small.
COMMON: dict[str, Any] = {
    "batch_size": 8, "precision": "fp32", "weight_decay": 0.5, "warmup_epochs": 0.5, "clip_norm": 0.5, "flip": 0.5,
}  # fmt: skip
PLAIN = Recipe(
    **COMMON, epochs=2, optimizer="sgd", lr=0.05, momentum=0.9, label_smoothing=0.1, shift=2.0, rotate=0.0, erase=0.5
)
STAGED = Recipe(
    **COMMON, epochs=2, optimizer="adamw", lr=0.002, ema_decay=0.5, shift=1.0, rotate=15.0, scale=0.2, image_size=20
)


class Plain(Method):
    """Cross-entropy, with the loss of every step kept."""

    card = MethodCard(name="plain", title="of a test")

    def on_fit_start(self, model: torch.nn.Module, view: TrainView) -> None:
        self.losses: list[float] = []

    def on_step_end(self, model: torch.nn.Module, batch: Batch, loss: LossOut) -> None:
        self.losses.append(loss.total.item())


class Staged(Plain):
    """Two gradient stages, the second with a frozen trunk and a new head; a second stream with two views."""

    card = MethodCard(name="staged", title="of a test")

    def stages(self) -> list[Stage]:
        return [Stage(name="features", epochs=2), Stage(name="head", epochs=1, freeze=("trunk",), reinit=("head",))]

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        def rare(view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
            return rng.choice(np.flatnonzero(view.labels > 1), 12)

        return {
            "main": StreamSpec(),
            "rare": StreamSpec(sampler=rare, views=2, batch_size=4, augment=Augment(shift=1.0)),
        }

    def training_step(self, model: torch.nn.Module, batch: Batch) -> LossOut:
        output, rare = model(batch.x), batch.aux["rare"]
        others = [self.criterion(model(x), rare.target) for x in rare.views]
        noise = torch.rand(1, generator=batch.generator).item()
        total = self.criterion(output, batch.target) + (0.5 + 0.1 * noise) * sum(others) / 2
        return LossOut(total=total, output=output)


class Weighted(Plain):
    """Cross-entropy with weights N / (C n_c), for labels of which every third image's are votes."""

    card = MethodCard(name="weighted", title="of a test")

    def on_batch(self, batch: Batch) -> Batch:
        votes = batch.soft_target(4)
        doubted = (batch.index % 3 == 0)[:, None]
        return batch.with_(soft=torch.where(doubted, 0.75 * votes + 0.25 * votes.roll(1, 1), votes))

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        return cross_entropy(output.logits, target, reduction="none")

    def image_weights(self, batch: Batch) -> Tensor:
        return batch.expected(self.ctx.size / (4 * self.ctx.counts))


def make_images(first: int, n: int) -> tuple[Tensor, np.ndarray]:
    """Images uint8 [n, 1, 16, 16] and labels [n] from whole-number formulas, the later classes rarer."""
    k = np.arange(first, first + n)
    labels = np.array([0, 0, 1, 0, 2, 1, 0, 3, 1, 0])[k % 10]
    row, column = np.mgrid[:16, :16]
    images = (k[:, None, None] * 37 + row * (11 + k[:, None, None] % 7) + column * column * 5) % 97
    images += 120 * (row // 4 == labels[:, None, None])
    return torch.from_numpy(images.astype(np.uint8)[:, None]), labels


@contextmanager
def one_thread() -> Iterator[None]:
    """Deterministic algorithms and one thread; what this process had before is restored."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def trace(method: Plain, recipe: Recipe) -> dict[str, list[float]]:
    """Train as a training process does; the loss of each step, and learning rate and validation loss of each epoch."""
    spec = RunSpec(
        method=method.card.name, dataset="none", protocol="none", backbone="resnet10_tiny", recipe=recipe, seed=3
    )
    runtime = Runtime(device="cpu", deterministic=True, threads=1)
    images, labels = make_images(0, 40)
    val_images, val_labels = make_images(100, 20)
    side = recipe.image_size or 16
    method.ctx = Context(
        classes=("a", "b", "c", "d"), counts=np.bincount(labels, minlength=4), image_shape=(1, side, side),
        seed=spec.seed, epochs=recipe.epochs, batch_size=recipe.batch_size, device=CPU, recipe=recipe.to_dict(),
    )  # fmt: skip
    with one_thread(), tempfile.TemporaryDirectory() as work:
        worker.set_up(spec, runtime)
        model = worker.build_model(spec, method, CPU, pretrained=False, use_compile=False)
        job = Job(
            method=method, model=model, ctx=method.ctx, recipe=recipe, runtime=runtime, work=Path(work),
            view=TrainView(images=images, labels=labels, num_classes=4), val=Fold(images=val_images, labels=val_labels),
        )  # fmt: skip
        history = fit.fit(job).history
    return {
        "loss of each step": method.losses,
        "learning rate at the end of each epoch": [entry["lr"] for entry in history],
        "validation loss of each epoch": [entry["val_loss"] for entry in history],
    }


RUNS: dict[str, Callable[[], dict[str, list[float]]]] = {
    "plain": lambda: trace(Plain({}), PLAIN),
    "staged": lambda: trace(Staged({}), STAGED),
    "weighted": lambda: trace(Weighted({}), PLAIN),
}


def differences(run: str, now: dict[str, list[float]], committed: dict[str, list[float]]) -> list[str]:
    """What differs between two traces by more than the tolerance, one line each."""
    lines = [f"{run}: {name} is missing" for name in committed.keys() ^ now.keys()]
    for name in committed.keys() & now.keys():
        if len(now[name]) != len(committed[name]):
            lines.append(f"{run}: {len(now[name])} values of the {name}, not {len(committed[name])}")
            continue
        for k, (value, expected) in enumerate(zip(now[name], committed[name], strict=True)):
            if not math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=1e-9):
                lines.append(f"{run}: {name}, number {k + 1}: {value:.7g}, not {expected:.7g}")
                break
    return sorted(lines)


def read_committed() -> dict[str, Any]:
    return json.loads(FILE.read_text())


@pytest.mark.parametrize("run", RUNS)
def test_losses_are_the_committed_ones(run: str):
    lines = differences(run, RUNS[run](), read_committed()["runs"][run])
    if lines:
        pytest.fail(
            "training gives other results than before:\n  " + "\n  ".join(lines) + "\n"
            f"If this is intended, raise NUMERICS in fer_bench/record/ledger.py (now {NUMERICS}), so that old records "
            f"are not taken for new ones, and write the new losses:\n  {COMMAND}"
        )


def test_the_committed_losses_belong_to_this_numerics():
    assert read_committed()["numerics"] == NUMERICS, f"NUMERICS was changed: write its losses with {COMMAND}"


def test_a_run_repeats_its_losses_exactly():
    assert RUNS["staged"]() == RUNS["staged"]()


# -- changes of the harness that must be noticed -----------------------------------------------------------------------


def another_stream(draw: Callable[..., Any]) -> Callable[..., Any]:
    return lambda seed, *names: draw(seed, *names, "another")


def weights_of_smoothed_targets(self: Batch, values: np.ndarray) -> Tensor:
    return (self.target * torch.as_tensor(values, dtype=torch.float32)).sum(1)


def decay_of_everything(model: torch.nn.Module, decay: float) -> list[dict]:
    return [{"params": list(model.parameters()), "weight_decay": decay}]


def constant_average(self: optim.Ema, model: torch.nn.Module) -> None:
    for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
        mine.data.lerp_(new.detach(), 1 - self.decay)
    for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
        mine.copy_(new)


def late_schedule(recipe: Recipe, stage: Stage, at: float, epochs: int) -> float:
    return optim.learning_rate(recipe, stage, at + 0.05, epochs)


def taller_boxes(augment: Augment, u: Tensor, height: int, width: int, draw: Callable[..., Tensor] = dataplane._boxes
                 ) -> Tensor:  # fmt: skip
    return draw(augment, u, height, width) + torch.tensor([0, 1, 0, 0])


CHANGES: dict[str, tuple[str, object, str, Any]] = {
    "the order of the images": ("plain", dataplane, "numpy_generator", another_stream(dataplane.numpy_generator)),
    "draws of the augmentation": ("plain", dataplane, "torch_generator", another_stream(dataplane.torch_generator)),
    "the initial weights": ("plain", worker, "stream_seed", another_stream(worker.stream_seed)),
    "the new head of a stage": ("staged", optim, "seed_all", another_stream(optim.seed_all)),
    "which weights decay (SGD)": ("plain", optim, "decay_groups", decay_of_everything),
    "which weights decay (AdamW)": ("staged", optim, "decay_groups", decay_of_everything),
    "the learning rate, a quarter of a step late": ("plain", fit, "learning_rate", late_schedule),
    "the warm-up of the average": ("staged", optim.Ema, "update", constant_average),
    "no label smoothing": ("plain", fit, "_smooth", lambda batch, share, classes: batch),
    "weights of targets after smoothing": ("weighted", Batch, "expected", weights_of_smoothed_targets),
    "no clipping": ("plain", torch.nn.utils, "clip_grad_norm_", lambda *a: None),
    "the size of erased rectangles": ("plain", dataplane, "_boxes", taller_boxes),
    "parts that are not frozen": ("staged", fit, "freeze", lambda model, stage: None),
    "the mean that images are normalised with": ("plain", dataplane.to_float, "__defaults__", (0.51, dataplane.STD)),
    "the size that validation is predicted at": ("staged", evaluate, "prepare", lambda x, size: dataplane.to_float(x)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_harness_is_noticed(change: str, monkeypatch: pytest.MonkeyPatch):
    run, owner, name, value = CHANGES[change]
    monkeypatch.setattr(owner, name, value)
    assert differences(run, RUNS[run](), read_committed()["runs"][run])


def test_losses_are_not_rewritten_under_the_same_numerics(tmp_path: Path):
    file = tmp_path / "numerics.json"
    file.write_text(json.dumps({"numerics": NUMERICS, "runs": {"plain": {"loss": [1.0]}}}))

    with pytest.raises(SystemExit, match=r"raise NUMERICS in fer_bench/record/ledger\.py first"):
        write(file, {"plain": {"loss": [2.0]}})
    assert "2.0" not in file.read_text()

    file.write_text(json.dumps({"numerics": NUMERICS - 1, "runs": {"plain": {"loss": [1.0]}}}))
    write(file, {"plain": {"loss": [2.0]}})
    assert json.loads(file.read_text()) == {"numerics": NUMERICS, "runs": {"plain": {"loss": [2.0]}}}

    with pytest.raises(SystemExit):
        write(file, {"another": {"loss": [3.0]}})  # a run is missing
    write(file, {"plain": {"loss": [2.0]}, "another": {"loss": [3.0]}})  # one more run changes no result
    assert json.loads(file.read_text())["runs"].keys() == {"plain", "another"}


def write(file: Path, runs: dict[str, dict[str, list[float]]]) -> None:
    """Write traces as those of the present NUMERICS; exits where a run has another one there under this number."""
    if file.exists():
        there = json.loads(file.read_text())
        same = not any(differences(r, runs.get(r, {}), committed) for r, committed in there["runs"].items())
        if there["numerics"] == NUMERICS and not same:
            sys.exit(f"training gives other results, and NUMERICS is still {NUMERICS}: raise NUMERICS in "
                     "fer_bench/record/ledger.py first")  # fmt: skip
        if there["numerics"] == NUMERICS:
            runs = {**runs, **there["runs"]}  # the committed digits stay, which other machines round otherwise
    rounded = {r: {n: [float(f"{v:.9g}") for v in values] for n, values in t.items()} for r, t in runs.items()}
    file.write_text(json.dumps({"numerics": NUMERICS, "runs": rounded}, indent=1) + "\n")


if __name__ == "__main__":
    write(FILE, {name: run() for name, run in RUNS.items()})
    print(f"wrote {FILE}")
