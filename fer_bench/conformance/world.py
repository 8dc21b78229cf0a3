"""The world a method is tried in: a small network, small folds, and the harness's own loop in this process."""

from __future__ import annotations

import copy
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from fer_bench.conformance.images import COUNTS, SIDE, training, validation
from fer_bench.conformance.promise import Broken
from fer_bench.contract.backbones import Trunk, build_trunk
from fer_bench.contract.batch import Batch, Context, LossOut, TrainView
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.method import Method, Stage
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.contract.streamed import Images
from fer_bench.errors import SpecError, TrainingError
from fer_bench.rng import seed_all, stream_seed
from fer_bench.training.checkpoint import load_model
from fer_bench.training.evaluate import Predictions, predict
from fer_bench.training.fit import fit, has_estimator
from fer_bench.training.job import Fold, Job, Listener, Progress, Runtime, snapshot_file
from fer_bench.training.plain import pack
from fer_bench.training.recipe import Recipe

SEED = 0
FEWEST = (3, 2, 2, 1)  # images a class of the smallest fold for which a method may ask for more
MORE = (4, 16)  # times as many images, for a method that refuses small folds
LARGER = (32, 48, 64, 96, 128)  # pixels, for one that refuses small images
RECIPE = Recipe(
    epochs=2, batch_size=16, optimizer="sgd", lr=0.02, precision="fp32", warmup_epochs=0.4, shift=1.0, rotate=0.0
)  # SGD's steps shrink with the gradient, so that two losses which differ by rounding train alike
ONE_STEP = replace(RECIPE, epochs=1)
CPU = torch.device("cpu")


def _tiny_convnext() -> nn.Module:
    return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=0, in_chans=1)


def _tiny_vit(side: int) -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", depth=1, embed_dim=64, num_heads=2, patch_size=8, img_size=side, num_classes=0,
        in_chans=1,
    )  # fmt: skip


NETWORK_SIDE = 32  # pixels: what a ConvNeXt needs at least
NETWORKS: dict[str, Callable[[int], Trunk]] = {
    "ResNet": lambda side: build_trunk("resnet10_tiny", in_chans=1, image_size=side),
    "ConvNeXt": lambda side: Trunk(_tiny_convnext()),
    "ViT": lambda side: Trunk(_tiny_vit(side)),
}
"""Trunks for grey images of a side in pixels, by family.

They are timm's own classes, with one narrow block a stage, so that a step takes hundredths of a second.
"""


@dataclass
class Step:
    """One call of ``training_step``, and the gradients that came of it."""

    epoch: int
    step: int
    stage: str
    labels: Tensor
    loss: float
    gradient: float = float("nan")

    @property
    def where(self) -> str:
        """In words."""
        labels = self.labels.tolist()
        text = ", ".join(map(str, labels[:16])) + (", ..." if len(labels) > 16 else "")
        return f"stage '{self.stage}', epoch {self.epoch + 1}, step {self.step + 1}, labels [{text}]"


@dataclass
class Watch:
    """Looks over a method's shoulder: notes every step, and stops the training where a number is not finite.

    `on_batch` changes a batch after the method has, `model` is told of the network once it is built.
    """

    on_batch: Callable[[Batch], Batch] = lambda batch: batch
    model: Callable[[nn.Module], object] = lambda model: None
    draws: bool = False
    steps: list[Step] = field(default_factory=list)
    stage: str = ""

    def over(self, method: Method, model: nn.Module) -> None:
        """Wrap the hooks of one instance."""
        self.model(model)
        batch, step, grad, stage = method.on_batch, method.training_step, method.grad_hook, method.on_stage_start

        def on_batch(given: Batch) -> Batch:
            made = self._undrawn("on_batch", lambda: batch(given), None)
            return self.on_batch(made) if isinstance(made, Batch) else made

        def training_step(network: nn.Module, given: Batch) -> LossOut:
            made = self._undrawn("training_step", lambda: step(network, given), network)
            if isinstance(made, LossOut):
                self._note(given, made)
            return made

        def grad_hook(network: nn.Module) -> None:
            grad(network)
            self._note_gradients(network)

        def on_stage_start(entered: Stage, network: nn.Module, view: TrainView) -> None:
            self.stage = entered.name
            stage(entered, network, view)

        vars(method).update(
            on_batch=on_batch, training_step=training_step, grad_hook=grad_hook, on_stage_start=on_stage_start
        )  # fmt: skip

    def _note(self, batch: Batch, made: LossOut) -> None:
        loss = made.total.detach().float()
        noted = Step(batch.epoch, batch.step, self.stage, batch.y, float(loss.mean()))
        self.steps.append(noted)
        if not np.isfinite(noted.loss):
            raise Broken(f"the loss is {noted.loss}", example=noted.where, look="training_step, criterion")

    def _note_gradients(self, model: nn.Module) -> None:
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        norms = torch.stack([g.detach().float().norm() for g in grads.values()]) if grads else torch.zeros(1)
        last = self.steps[-1]
        last.gradient = float(norms.norm())
        for step in self.steps[::-1]:  # several passes over one batch share the gradient that is stepped along
            if (step.stage, step.epoch, step.step) != (last.stage, last.epoch, last.step):
                break
            step.gradient = last.gradient
        if not np.isfinite(last.gradient):
            bad = [n for n, norm in zip(grads, norms, strict=True) if not torch.isfinite(norm)]
            what = f"the gradient of {bad[0]} is not finite" + (f", nor that of {len(bad) - 1} more" * (len(bad) > 1))
            raise Broken(what, example=f"{last.where}; the loss is {last.loss:.4g}", look="training_step, criterion")

    def _undrawn(self, hook: str, call: Callable[[], Any], model: nn.Module | None) -> Any:
        """What a hook returns; an error if it drew from a global generator.

        Layers of the network may draw from torch's, for which every epoch is seeded: dropout does, and Gaussian noise.
        """
        if not self.draws:
            return call()
        before = _global_states()
        with _layers_aside(model) as drawn:
            made = call()
        moved = [name for name, state in _global_states().items() if state != before[name]]
        if not drawn() and "torch" in moved:
            moved.remove("torch")
        if moved:
            raise Broken(
                f"{hook} draws from the global generator of {moved[0]}",
                example="its state differs before and after the call",
                look=f"{hook}: draw from batch.generator, or from self.ctx.generator(name, step)",
            )
        return made


def _global_states() -> dict[str, bytes]:
    """What the global generators hold, by the name of their library."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    states = {"torch": torch.get_rng_state().numpy().tobytes(), "NumPy": numpy[1].tobytes() + repr(numpy[2:]).encode()}
    return {**states, "random": repr(random.getstate()).encode()}


@contextmanager
def _layers_aside(model: nn.Module | None) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether anything but the forward passes of a network's layers drew from torch's."""
    layers = set() if model is None else set(model.modules())
    entered: list[nn.Module] = []
    last, outside = torch.get_rng_state(), False

    def look() -> bool:
        nonlocal outside
        outside = outside or not torch.equal(torch.get_rng_state(), last)
        return outside

    def enter(module: nn.Module, given: Any) -> None:
        if module in layers:
            if not entered:
                look()
            entered.append(module)

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        nonlocal last
        if entered and entered[-1] is module:
            entered.pop()
            if not entered:
                last = torch.get_rng_state()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield look
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Training:
    """A training that has been carried out."""

    job: Job
    progress: Progress
    watch: Watch

    @property
    def last_snapshot(self) -> Path:
        """What is scored after the last epoch."""
        return snapshot_file(self.job.work, self.progress.epoch - 1)


@dataclass(frozen=True)
class Tried:
    """A training with some parameters: which of all parameters the hooks read, and what it left."""

    params: Mapping[str, Any]
    recipe: Recipe
    read: set[str]
    left: Mapping[str, Any]


@dataclass
class World:
    """What the promises of one method are checked in; costly things are made once and shared.

    Attributes
    ----------
    plugin : Plugin
        The method.
    plugins : Plugins
        Everything that was found; a read-out names another method.
    folder : Path
        A folder of its own for checkpoints and snapshots.
    notes : bool
        Whether anybody reads what is worth knowing of a promise that is kept.
    """

    plugin: Plugin[MethodCard]
    plugins: Plugins
    folder: Path
    notes: bool = True
    unmoved: bool = False  # whether a training with another validation fold altogether ended in the same weights
    times: int = 1  # how often each image of a fold is there: more than once for a method that refuses small folds
    tried: list[Tried] = field(default_factory=list)  # what was trained with which parameters
    changed: set[str] = field(default_factory=set)  # parameters of which a value has changed anything
    _count: int = 0

    @cached_property
    def cls(self) -> type[Method]:
        """The plug-in's class, imported."""
        return self.plugin.load()

    @property
    def card(self) -> MethodCard:
        """What the plug-in says about itself."""
        return self.plugin.card

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages of the method with its default parameters."""
        return self.method(self.fold()).stages()

    @property
    def has_steps(self) -> bool:
        """Whether anything is trained by gradient descent."""
        return any(s.kind == "gradient" for s in self.stages)

    @property
    def side(self) -> int:
        """Pixels of the images on which it is tried."""
        return max(SIDE, self.card.pixels)

    def fold(self, counts: Sequence[int] = COUNTS, **kwargs: Any) -> TrainView:
        """A training fold of as many images as the method wants at least."""
        return self.exactly([n * self.times for n in counts], **kwargs)

    def exactly(self, counts: Sequence[int], **kwargs: Any) -> TrainView:
        """A training fold (:func:`fer_bench.conformance.images.training`) with what the card needs."""
        return training(counts, **{"votes": "votes" in self.card.needs, "side": self.side, **kwargs})

    def imported_anew(self) -> type[Method]:
        """The class as another process has it: what the module's globals were given since its import is gone."""
        name = self.cls.__module__
        kept = sys.modules.pop(name, None)
        try:
            return self.plugin.load()
        finally:
            if kept is not None:
                sys.modules[name] = kept

    def method(
        self,
        view: TrainView,
        recipe: Recipe = RECIPE,
        params: Mapping[str, Any] | None = None,
        *,
        cls: type[Method] | None = None,
    ) -> Method:
        """A fresh instance with its context, as a run's processes make it."""
        method: Method = (cls or self.cls)(self.card.resolve(params or {}))
        method.ctx = Context(
            classes=tuple(f"class {c}" for c in range(view.num_classes)),
            counts=view.counts,
            image_shape=(view.images.shape[1], view.images.shape[2], view.images.shape[3]),
            seed=SEED,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            device=CPU,
            recipe=recipe.to_dict(),
        )
        return method

    def model(self, method: Method, trunk: Callable[[], Trunk] | None = None) -> nn.Module:
        """The method's network, with the weights that the seed gives."""
        channels, side, _ = method.ctx.image_shape
        seed_all(SEED, "setup")
        torch.manual_seed(stream_seed(SEED, "init"))
        model = method.build_model(
            trunk or (lambda: build_trunk("resnet10_tiny", in_chans=channels, image_size=side))
        )  # fmt: skip
        if not isinstance(model, nn.Module):
            raise TrainingError(f"build_model() must return a torch module, not {type(model).__name__}")
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def job(self, view: TrainView, *, recipe: Recipe = RECIPE, params: Mapping[str, Any] | None = None,
            val: Fold | None = None, trunk: Callable[[], Trunk] | None = None, work: Path | None = None,
            listener: Listener | None = None, keeps: Callable[[int], bool] = lambda epoch: False) -> Job:  # fmt: skip
        """A training that is ready to start; `work` holds the checkpoint of one that was interrupted.

        Files take a third of the time of so small a training, so none is written unless `keeps` asks for it.
        """
        method = self.method(view, recipe, params)
        model = self.model(method, trunk)
        if work is None:
            self._count += 1
            work = self.folder / f"training {self._count}"
        val = val or validation(view.num_classes, side=view.images.shape[-1])
        return Job(
            method=method, model=model, ctx=method.ctx, recipe=recipe, view=view, val=val, work=work,
            runtime=Runtime(device="cpu", checkpoint_seconds=0.0), listener=listener or Listener(), keeps=keeps,
        )  # fmt: skip

    def train(self, view: TrainView, *, watch: Watch | None = None, **job: Any) -> Training:
        """Train from nothing, or from the checkpoint in `work`; errors say what was being trained."""
        watch = watch or Watch()
        try:
            ready = self.job(view, **job)
            watch.over(ready.method, ready.model)
            progress = fit(ready)
            pack(ready.method.state_dict(), f"{self.card.name}.state_dict()")  # as whoever writes it would
            return Training(ready, progress, watch)
        except Exception as error:
            error.add_note(in_words(view, **job))
            if isinstance(error, Broken):
                failure = error.failure
                error.failure = replace(failure, example="; ".join((failure.example, *error.__notes__)))
            raise

    @cached_property
    def reference(self) -> Training:
        """Two epochs on the usual fold, which many promises look at."""
        try:
            return self._reference()
        except SpecError as reason:
            self.times = self._enough(reason)
        return self._reference()

    def _reference(self) -> Training:
        work = self.folder / f"reference {self.times}"
        copying = Copying(work, self.interrupted, after=0)
        return self.train(self.fold(), work=work, listener=copying, keeps=lambda epoch: True)

    def _enough(self, reason: SpecError) -> int:
        """How often every image must be there until the method takes the fold.

        Raises
        ------
        Broken
            It takes larger images instead, and its card does not say so.
        SpecError
            It takes neither.
        """
        for times in MORE:
            if self._takes(self.fold([times * n for n in FEWEST])):
                return times
        for side in LARGER:
            if self._takes(self.fold(side=side)):
                raise Broken(
                    f"it refuses images of {self.side} pixels, but its card does not say what it needs: {reason.what}",
                    example=f"it takes images of {side} pixels",
                    look=f'card, needs=("{side} pixels",)',
                    page="docs/methods.md, 'What it needs'",
                ) from None
        raise reason

    def _takes(self, view: TrainView) -> bool:
        """Whether training on a fold begins."""
        try:
            job = self.job(view)
            job.method.on_fit_start(job.model, view)
        except SpecError:
            return False
        return True

    @property
    def interrupted(self) -> Path:
        """What the training of `reference` had written by the end of its first epoch."""
        return self.folder / "reference, one epoch"

    def fresh(self, training: Training, *, cls: type[Method] | None = None) -> tuple[Method, nn.Module]:
        """What a scoring process has: a new instance, the weights, and the state of the last epoch."""
        method = self.method(training.job.view, training.job.recipe, training.job.method.params, cls=cls)
        model = self.model(method)
        load_model(training.last_snapshot, model, method, CPU)
        return method, model

    def predict(self, method: Method, model: nn.Module, images: Images, *, batch: int = 512) -> Predictions:
        """Logits and features before any adjustment, by the harness."""
        return predict(
            method, model, images, RECIPE, estimator=has_estimator(method.stages()), batch=batch, features=True
        )


class Copying(Listener):
    """Copies what a training has written by the end of an epoch: what is there when it is interrupted then."""

    def __init__(self, work: Path, copy: Path, *, after: int):
        self.work, self.copy, self.after = work, copy, after

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """An epoch is over, and its checkpoint written."""
        if entry["epoch"] == self.after:
            shutil.copytree(self.work, self.copy, ignore=shutil.ignore_patterns("snapshot_*"))


def in_words(view: TrainView, *, recipe: Recipe = RECIPE, params: Mapping[str, Any] | None = None, **rest: Any) -> str:
    """What is trained: the fold, the batches, the parameters."""
    channels, height, width = view.images.shape[1:]
    counts = view.counts.tolist()
    text = f"{len(view)} images {channels}x{height}x{width} of {view.num_classes} classes"
    text += f" ({', '.join(map(str, counts))} each)" if len(counts) <= 8 else ""
    text += f", batches of {min(recipe.batch_size, len(view))}, {recipe.precision}, seed {SEED}"
    return text + (f", parameters {dict(params)}" if params else "")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers by name."""
    return {k: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in model.state_dict().items()}


def first_difference(one: Any, other: Any, name: str) -> str | None:
    """Where two states of plain data differ first, bitwise; None where they are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{name} has the keys {list(one)} and {list(other)}"
        return next((d for k in one if (d := first_difference(one[k], other[k], f"{name}[{k!r}]"))), None)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f"{name} has {len(one)} and {len(other)} entries"
        pairs = enumerate(zip(one, other, strict=True))
        return next((d for k, (a, b) in pairs if (d := first_difference(a, b, f"{name}[{k}]"))), None)
    if isinstance(one, (Tensor, np.ndarray)) and isinstance(other, (Tensor, np.ndarray)):
        a, b = (np.asarray(v.detach().float() if isinstance(v, Tensor) else v) for v in (one, other))
        if a.shape != b.shape:
            return f"{name} has shapes {a.shape} and {b.shape}"
        if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return None
        place = tuple(int(k) for k in np.argwhere(a != b)[0])
        return f"{name}{list(place) if place else ''} is {a[place]:.9g} and {b[place]:.9g}"
    return None if one == other else f"{name} is {one!r} and {other!r}"
