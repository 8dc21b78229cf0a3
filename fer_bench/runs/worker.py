"""What the processes of a run do: train, score the test, and probe. Plug-in code runs here and nowhere else.

Each function is one process, forked fresh (:mod:`fer_bench.runs.forkserver`). It loads the images it may see, starts
the guard (:mod:`fer_bench.seal`), and only then imports the method.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.base.files import read_array, write_array
from fer_bench.contract.backbone_names import SMALL, check_backbone
from fer_bench.contract.backbones import Trunk, build_trunk, try_backbone
from fer_bench.contract.batch import TrainView, ValOutputs
from fer_bench.contract.method import Method
from fer_bench.contract.streamed import Images
from fer_bench.errors import FerBenchError, OutOfMemoryError, PrunedTrial, TrainingError
from fer_bench.rng import seed_all, stream_seed
from fer_bench.runs.blame import frame_to_blame
from fer_bench.runs.failures import failure_of
from fer_bench.runs.images import is_out_of_memory
from fer_bench.runs.order import Arrays, Line, Order
from fer_bench.runs.passes import run_passes
from fer_bench.runs.readout_worker import apply_readout, fit_readout, probe_readout
from fer_bench.runs.spec import RunSpec
from fer_bench.training.checkpoint import load_model, load_progress, save_model
from fer_bench.training.evaluate import (
    EVAL_BATCH,
    adjusted,
    adjusts,
    check_logits,
    class_dtype,
    predict,
    predict_exactly,
)
from fer_bench.training.fit import candidates, fit, has_estimator
from fer_bench.training.job import (
    Fold,
    Job,
    Listener,
    Progress,
    Runtime,
    fitted_file,
    logits_file,
    ready_file,
    snapshot_file,
)

STEP_SECONDS = 0.2  # between messages about steps: a progress bar needs no more


def set_up(spec: RunSpec, runtime: Runtime) -> torch.device:
    """Bring torch into the state that a run asks for; returns its device."""
    device = runtime.resolve()
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # "cuda" without a number, as in code of methods, means this one
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.benchmark = not runtime.deterministic
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    seed_all(spec.seed, "setup")
    return device


def build_model(spec: RunSpec, method: Method, device: torch.device, *, pretrained: bool, use_compile: bool
                ) -> nn.Module:  # fmt: skip
    """The method's network on the device; `pretrained` is of no use where weights are loaded next."""
    channels, height, _ = method.ctx.image_shape

    def backbone() -> Trunk:
        return build_trunk(
            spec.backbone, in_chans=channels, image_size=height, pretrained=pretrained, drop_rate=spec.recipe.drop_rate
        )

    torch.manual_seed(stream_seed(spec.seed, "init"))
    model = method.build_model(backbone)
    if not isinstance(model, nn.Module):
        raise TrainingError(f"build_model() of '{spec.method}' must return a torch module, not {type(model).__name__}")
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules() if use_compile else ():
        if isinstance(module, Trunk):
            module.compile_features()
    return model


# -- training --------------------------------------------------------------------------------------------------------


class _Relay(Listener):
    """Passes on what happens in training to the driver, whose listener shows it."""

    def __init__(self, line: Line):
        self.line, self.images, self.steps, self.sent = line, 0, 0, 0.0

    def start(self, epochs: int, steps: int, done: int) -> None:
        self.line.tell("start", epochs=epochs, steps=steps, done=done)

    def step(self, images: int, steps: int = 1) -> None:
        self.images, self.steps = self.images + images, self.steps + steps
        if time.monotonic() - self.sent > STEP_SECONDS:
            self._send()

    def _send(self) -> None:
        if self.steps:
            self.line.tell("step", images=self.images, steps=self.steps)
        self.images, self.steps, self.sent = 0, 0, time.monotonic()

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self._send()
        reply = self.line.ask("epoch", entry=dict(entry))
        if reply["pruned"]:
            raise PrunedTrial(reply["pruned"])

    def warn(self, text: str) -> None:
        self.line.tell("warning", text=text)


def train(order: Order) -> None:
    """Train, select an epoch on validation, and write down what was selected."""
    spec, writer, arrays = order.spec, order.record, order.arrays
    device = set_up(spec, order.runtime)
    images = order.images({r: arrays[f"{r}_rows"] for r in ("train", "val")}, device)
    method = order.method(device)
    use_compile = device.type == "cuda" if order.runtime.compile is None else order.runtime.compile
    model = build_model(spec, method, device, pretrained=spec.pretrained, use_compile=use_compile)
    view = TrainView(
        images=images["train"], labels=arrays["train_labels"], groups=arrays.get("groups"), soft=arrays.get("soft"),
        num_classes=method.ctx.num_classes,
    )  # fmt: skip
    facts = {**hardware(device), "images": "memory" if isinstance(view.images, Tensor) else "stream"}
    job = Job(
        method=method, model=model, ctx=method.ctx, recipe=spec.recipe, runtime=order.runtime, view=view,
        val=Fold(images=images["val"], labels=arrays["val_labels"]), work=writer.work, listener=_Relay(order.line),
    )  # fmt: skip
    writer.put("method", {**method.card.facts, "parameters": sum(p.numel() for p in model.parameters())})
    try:
        progress = fit(job)
    except PrunedTrial:
        writer.put("history", load_progress(job.work).history)
        order.line.tell("environment", facts=facts)
        raise
    chosen = select(spec, job, progress)
    writer.put("history", progress.history)
    writer.put("val_logits", read_out(job, chosen, every=spec.test))
    writer.put("val_epochs", np.stack([progress.predictions[e] for e in chosen["candidates"]]))
    writer.put("selection", chosen)
    order.line.tell("environment", facts=facts)
    reached = {"seconds": progress.seconds, "speeds": progress.speeds, "resumed": progress.resumed}
    order.line.tell("trained", selection=chosen, **reached)


def select(spec: RunSpec, job: Job, progress: Progress) -> dict[str, Any]:
    """Choose the epoch on validation; of equal ones the first, as a person stopping early would have."""
    possible = candidates(job.method.stages(), job.recipe, progress.epoch)
    key = f"val_{spec.selection.metric}"
    values = [progress.history[e][key] for e in possible]
    place = int(np.argmax(values)) if spec.selection.rule == "val" else len(possible) - 1
    chosen = {"rule": spec.selection.rule, "metric": spec.selection.metric, "epoch": possible[place]}
    return {**chosen, "value": values[place], "candidates": possible}


def read_out(job: Job, chosen: Mapping[str, Any], *, every: bool) -> np.ndarray:
    """Fit the read-out adjustment of the chosen epoch (of `every` candidate), which needs validation's labels.

    Returns validation's logits at the chosen epoch, float32 [n, K].
    """
    if not adjusts(type(job.method)):
        return _kept_logits(job, chosen["epoch"])
    for epoch in chosen["candidates"] if every else [chosen["epoch"]]:
        load_model(snapshot_file(job.work, epoch), job.model, job.method, job.ctx.device)
        logits, features = raw_logits(job.method, job.model, job.val.images, job.recipe, features=True)
        job.method.fit_posthoc(job.model, ValOutputs(logits=logits, labels=job.val.labels, features=features))
        logits = adjusted(job.method, logits, features)
        save_model(fitted_file(job.work, epoch), job.model, job.method)
        if epoch == chosen["epoch"]:
            selected = logits.astype(np.float32)
    return selected


def _kept_logits(job: Job, epoch: int) -> np.ndarray:
    """Validation's logits as they were when `epoch` was scored."""
    try:
        return read_array(logits_file(job.work, epoch))
    except (OSError, ValueError):  # an earlier version, which did not keep them, had begun this run
        load_model(snapshot_file(job.work, epoch), job.model, job.method, job.ctx.device)
        return raw_logits(job.method, job.model, job.val.images, job.recipe, features=False)[0].astype(np.float32)


def raw_logits(method: Method, model: nn.Module, images: Images, recipe: Any, *, features: bool
               ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Logits (and features, if something after the head may need them) of images, before any adjustment."""
    predictions = predict(method, model, images, recipe, estimator=has_estimator(method.stages()), features=features)
    check_logits(predictions.logits, len(images), method.ctx.num_classes, method.card.name)
    return predictions.logits, predictions.features


# -- scoring ---------------------------------------------------------------------------------------------------------


def score(order: Order) -> None:
    """Test logits of the selected epoch, and predicted classes of every candidate for the oracle; no label is here."""
    spec, work = order.spec, order.record.work
    device = set_up(spec, order.runtime)
    images = order.images({"test": order.arrays["test_rows"]}, device)["test"]
    method = order.method(device)
    model = build_model(spec, method, device, pretrained=False, use_compile=False)
    fits = adjusts(type(method))
    per_epoch = []
    for epoch in order.given["candidates"]:
        load_model(ready_file(work, epoch), model, method, device)
        logits, features = raw_logits(method, model, images, spec.recipe, features=fits)
        if fits:
            logits = adjusted(method, logits, features)
        per_epoch.append(logits.argmax(1).astype(class_dtype(method.ctx.num_classes)))
        if epoch == order.given["epoch"]:
            write_array(work / "test_logits.npy", logits.astype(np.float32))
    write_array(work / "test_epochs.npy", np.stack(per_epoch))


def probe(order: Order) -> None:
    """Predict the probe's images in the passes of one process; see :mod:`fer_bench.runs.probe`."""
    spec = order.spec
    device = set_up(spec, order.runtime)
    images = order.images({"probe": order.arrays["probe_rows"]}, device)["probe"]
    method = order.method(device)
    model = build_model(spec, method, device, pretrained=False, use_compile=False)
    load_model(ready_file(order.record.work, order.given["epoch"]), model, method, device)

    def logits_of(places: np.ndarray, batch: int) -> np.ndarray:
        shuffled = images[torch.as_tensor(places, device=device)]
        return predict_exactly(
            method, model, shuffled, spec.recipe, batch=min(batch, EVAL_BATCH),
            estimator=has_estimator(method.stages()), adjust=adjusts(type(method)),
        )  # fmt: skip

    run_passes(order, len(images), logits_of)


# -- before a study --------------------------------------------------------------------------------------------------


def try_images(order: Order) -> None:
    """Put two images through a backbone; no data and no plug-in take part."""
    if order.runtime.threads:
        torch.set_num_threads(order.runtime.threads)
    setting = order.given["setting"]
    try_backbone(
        setting["name"], tuple(setting["shape"]), pretrained=setting["pretrained"], drop_rate=setting["drop_rate"]
    )


def look(order: Order) -> None:
    """Report what this machine can compute on."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    order.line.tell(
        "machine",
        gpus=gpus,
        apple=torch.backends.mps.is_available(),
        gpu_bf16=bool(gpus) and torch.cuda.is_bf16_supported(),
        cpu_bf16=any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_tile")),
    )


def _cpu_has(feature: str) -> bool:
    """What torch says of the processor; False where this torch does not know the feature."""
    look = getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)
    return bool(look())


# -- what every process does -----------------------------------------------------------------------------------------


def prepare() -> None:
    """What every process would do first, done once in the server that forks them; it depends on no run."""
    import torch.utils.serialization.config  # noqa: F401 - torch.load imports it when it is first called

    check_backbone(SMALL[0])  # reads timm's names


def _role(carry_out: Callable[[Order], None]) -> Callable[[Mapping[str, Any], Arrays, Line], int]:
    """The function as a process: errors go to the driver, as a user should read them."""

    def run(given: Mapping[str, Any], arrays: Arrays, line: Line) -> int:
        order = Order(given, arrays, line)
        try:
            with order.open:
                carry_out(order)
        except Exception as error:
            answer = explained(error, order, fresh=carry_out not in (train, fit_readout))
            line.tell("error", **failure_of(answer, error))
            return 1
        return 0

    return run


ROLES = {
    name: _role(carry_out)
    for name, carry_out in (
        *(("train", train), ("score", score), ("probe", probe), ("try", try_images), ("look", look)),
        *(("fit_readout", fit_readout), ("apply_readout", apply_readout), ("probe_readout", probe_readout)),
    )
}


def explained(error: Exception, order: Order, *, fresh: bool) -> Exception:
    """The error as a user should read it; what is not ours to explain stays as it is.

    `fresh`: the process has not trained the method, so it knows of it what the weights and ``state_dict()`` hold.
    """
    if isinstance(error, FerBenchError) or "spec" not in order.given:
        return error
    spec = order.spec
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"the device ran out of memory with batches of {spec.recipe.batch_size}",
            hint="a smaller batch_size or image_size, or a smaller backbone",
            next=f"the same command with --set batch_size={max(2, spec.recipe.batch_size // 2)}",
        )
    frame = frame_to_blame(error, Path(order.given["plugin"]["path"]))
    if frame is None:
        return error
    forgot = "the test is predicted in a fresh process: what the method needs from training must be in its state_dict()"
    return TrainingError(
        f"'{spec.method}' raised {type(error).__name__}: {error}",
        where=f"{frame.filename}:{frame.lineno}, in {frame.name}",
        hint=forgot if fresh else "the traceback is in failed.json of the run's record",
        next=f"fer-bench show {spec.method}",
    )


def hardware(device: torch.device) -> dict[str, Any]:
    """What the process computes on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"device": device.type, "hardware": gpu or _cpu_name(), "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    """What the processor calls itself: Linux has a file for that, macOS a program."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip() or "unknown CPU"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown CPU"
