"""One run from spec to finished record.

The order is the promise: the store is read, the seal is closed, the method is loaded and trained, selection is written
and locked, and only then is the test opened, once.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.atomic import write_with
from fer_bench.backbones import build_trunk
from fer_bench.cards import DatasetCard, MethodCard
from fer_bench.checkpoint import load_snapshot
from fer_bench.credentials import words
from fer_bench.errors import DataError, FerBenchError, PrunedTrial, TrainingError
from fer_bench.evaluate import check_logits, predict, probe
from fer_bench.fit import Fold, Job, Listener, Progress, Runtime, candidates, fit, has_estimator
from fer_bench.home import Home
from fer_bench.ledger import NUMERICS, RunRecord, RunWriter, run_id
from fer_bench.method import Context, Method, TrainView, ValOutputs
from fer_bench.plugins import Plugins
from fer_bench.rng import seed_all, stream_seed
from fer_bench.roles import Roles, groups_of_test, labels_of_test, roles_digest, roles_of
from fer_bench.seal import Seal
from fer_bench.spec import RunSpec, label_of
from fer_bench.store import Store

PROBE_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and how runs are carried out."""

    home: Home
    plugins: Plugins
    runtime: Runtime = field(default_factory=Runtime)
    listener: Callable[[RunSpec, str], Listener] = lambda spec, label: Listener()

    def label(self, spec: RunSpec) -> str:
        """The run's method with its non-default parameters, as typed on the command line."""
        card = self.plugins.method(spec.method).card
        assert isinstance(card, MethodCard)
        return label_of(card, spec.params)


def identify(spec: RunSpec, work: Workplace) -> tuple[str, Store]:
    """The id a run has on the present data and code, and the store it reads."""
    store = Store.open(work.home.data / spec.dataset)
    if store.manifest.get("params", {}) != dict(spec.dataset_params):
        raise DataError(
            f"the prepared '{spec.dataset}' was made with other parameters",
            where=f"store {store.manifest.get('params')}, run {dict(spec.dataset_params)}",
            next=f"fer-bench data prepare {spec.dataset} --force",
        )
    source = work.plugins.method(spec.method).source_hash()
    rows = roles_digest(spec, store, work.plugins.dataset_card(spec.dataset), work.home)
    return run_id(spec.to_dict(), store.fingerprint, source, rows), store


def execute(spec: RunSpec, work: Workplace, *, started: Callable[[], None] = lambda: None) -> RunRecord:
    """Carry out a run, or return its record if it is finished already.

    `started` is called when training really begins: the run is neither finished nor held by another process.

    Raises
    ------
    LockedError
        Another process is training this run.
    FerBenchError
        The run failed; the reason is in the record too, and the next call tries again.
    """
    key, store = identify(spec, work)
    writer = work.home.ledger.writer(key)
    if writer.status in ("finished", "pruned"):
        writer.tidy()
        return work.home.ledger.run(key)
    with writer.locked():
        if writer.status in ("finished", "pruned"):  # by another process, since the look above
            return work.home.ledger.run(key)
        started()
        writer.start()
        try:
            _carry_out(spec, store, work, writer)
        except PrunedTrial:
            raise
        except FerBenchError as error:
            writer.fail(error)
            raise
        except Exception as error:
            writer.fail(error)
            explained = _explained(error, spec, work.plugins.method(spec.method).path)
            if explained is error:
                raise
            raise explained from error
    return work.home.ledger.run(key)


def _explained(error: Exception, spec: RunSpec, plugin: Path) -> Exception:
    """The error as a user should read it; what is not ours to explain stays as it is, traceback and all."""
    if isinstance(error, torch.OutOfMemoryError):
        return TrainingError(
            f"the device ran out of memory with batches of {spec.recipe.batch_size}",
            hint="a smaller batch_size or image_size, or a smaller backbone",
            next=f"the same command with --set batch_size={spec.recipe.batch_size // 2}",
        )
    frame = _frame_to_blame(error, plugin)
    if frame is None:
        return error
    return TrainingError(
        f"'{spec.method}' raised {type(error).__name__}: {error}",
        where=f"{frame.filename}:{frame.lineno}, in {frame.name}",
        hint="the traceback is in failed.json of the run's record",
        next=f"fer-bench show {spec.method}",
    )


def _frame_to_blame(error: Exception, plugin: Path) -> traceback.FrameSummary | None:
    """The innermost frame of a plug-in's folder, or of a hook's default that choked on what the plug-in gave it.

    None: the error is the harness's own, and its traceback is wanted.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if Path(f.filename).parent == plugin.parent]
    ours = [f for f in frames if Path(f.filename).parent == Path(__file__).parent]
    if theirs:
        return theirs[-1]
    return ours[-1] if ours and Path(ours[-1].filename).name == "method.py" else None


def _carry_out(spec: RunSpec, store: Store, work: Workplace, writer: RunWriter) -> None:
    started = datetime.datetime.now(datetime.UTC)
    clock = time.perf_counter()
    plugin = work.plugins.method(spec.method)
    card = work.plugins.dataset_card(spec.dataset)
    assert isinstance(plugin.card, MethodCard)
    roles = roles_of(store, card, work.home, protocol=spec.protocol, fold=spec.fold, profile=spec.profile)
    device = _set_up(spec, work.runtime)
    _write_identity(spec, store, card, roles, work, writer)
    images = {r: torch.from_numpy(store.images(roles.rows[r])).to(device) for r in ("train", "val")}
    with _seal(store, work, writer) as seal:
        method: Method = work.plugins.build_method(spec.method, spec.params)
        job = _job(spec, method, store, roles, images, device, work, writer)
        writer.put("method", _method_facts(plugin.card, job.model))
        progress = _fit_or_prune(job, writer, seal)
        chosen = _select(spec, job, progress)
        writer.put("history", progress.history)
        writer.put("selection", chosen)
        seal.lock(chosen)
        writer.put("probe", _probe(job, chosen, spec))
        _load(job, chosen["epoch"])
        _write_outputs("val", _fitted_val(job), roles, writer)
        writer.put("val_epochs", np.stack([progress.predictions[e] for e in chosen["candidates"]]))
        if spec.test:
            seal.open("score the selected epoch and the oracle", rows=len(roles.rows["test"]))
            _score_test(spec, job, store, seal, chosen, roles, card, writer)
        _keep_model(job, chosen, writer)
    writer.put("seal", seal.record())
    writer.put("environment", environment(device))
    writer.put("timing", _timing(progress, started, clock, device))
    writer.finish()


# -- before training -------------------------------------------------------------------------------------------------


def _seal(store: Store, work: Workplace, writer: RunWriter) -> Seal:
    """Guards the store with its sources, whatever else lies in the data folder, and the outputs of other runs."""
    folders = {work.home.data: "*", work.home.ledger.root: "*.npy"}
    return Seal(store.guarded_files(), folders=folders, spare=writer.path, journal=writer.path / "seal.json")


def _set_up(spec: RunSpec, runtime: Runtime) -> torch.device:
    device = runtime.resolve()
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.benchmark = not runtime.deterministic
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    seed_all(spec.seed, "setup")
    return device


def _write_identity(
    spec: RunSpec, store: Store, card: DatasetCard, roles: Roles, work: Workplace, writer: RunWriter
) -> None:
    plugin = work.plugins.method(spec.method)
    assert isinstance(plugin.card, MethodCard)
    identity = {"spec": spec.to_dict(), "fingerprint": store.fingerprint, "source": plugin.source_hash()}
    identity |= {"rows": roles.digest}
    writer.put("spec", {"run_id": writer.id, "label": work.label(spec), **identity, "numerics": NUMERICS})
    protocol = card.protocol(spec.protocol)
    named = {**dataclasses.asdict(protocol), "name": card.full_name(protocol), **roles.facts}
    facts: dict[str, Any] = {"dataset": card.name, "classes": list(roles.classes), "fingerprint": store.fingerprint}
    facts |= {"layout": store.manifest["layout"], "protocol": named, "counts": roles.counts}
    writer.put("data", facts)
    if spec.profile != "natural":
        writer.put("train_rows", roles.rows["train"].astype(np.int64))


def _method_facts(card: MethodCard, model: nn.Module) -> dict[str, Any]:
    kept = ("name", "title", "paper", "year", "url", "changes", "deviations", "transductive", "tier")
    return {**{k: getattr(card, k) for k in kept}, "parameters": sum(p.numel() for p in model.parameters())}


def _job(spec: RunSpec, method: Method, store: Store, roles: Roles, images: dict[str, Tensor],
         device: torch.device, work: Workplace, writer: RunWriter) -> Job:  # fmt: skip
    channels, height, width = store.shape
    recipe = spec.recipe
    size = recipe.image_size
    method.ctx = Context(
        classes=roles.classes,
        counts=np.asarray(roles.counts["train"], dtype=np.int64),
        image_shape=(channels, size or height, size or width),
        seed=spec.seed,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        device=device,
        recipe=recipe.to_dict(),
    )
    model = _build_model(spec, method, (channels, size or height), device, work.runtime)
    view = TrainView(
        images=images["train"], labels=roles.labels["train"], groups=roles.groups, soft=roles.soft,
        num_classes=len(roles.classes),
    )  # fmt: skip
    val = Fold(images=images["val"], labels=roles.labels["val"])
    return Job(
        method=method, model=model, ctx=method.ctx, recipe=recipe, runtime=work.runtime, view=view, val=val,
        work=writer.work, listener=work.listener(spec, work.label(spec)),
    )  # fmt: skip


def _build_model(spec: RunSpec, method: Method, shape: tuple[int, int], device: torch.device,
                 runtime: Runtime) -> nn.Module:  # fmt: skip
    from fer_bench.backbones import Trunk

    def backbone() -> Trunk:
        return build_trunk(
            spec.backbone, in_chans=shape[0], image_size=shape[1], pretrained=spec.pretrained,
            drop_rate=spec.recipe.drop_rate,
        )  # fmt: skip

    torch.manual_seed(stream_seed(spec.seed, "init"))
    model = method.build_model(backbone)
    if not isinstance(model, nn.Module):
        raise TrainingError(f"build_model() of '{spec.method}' must return a torch module, not {type(model).__name__}")
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    use_compile = device.type == "cuda" if runtime.compile is None else runtime.compile
    if use_compile:
        for module in model.modules():
            if isinstance(module, Trunk):
                module.compile_features()
    return model


# -- after training --------------------------------------------------------------------------------------------------


def _fit_or_prune(job: Job, writer: RunWriter, seal: Seal) -> Progress:
    try:
        return fit(job)
    except PrunedTrial:
        saved = torch.load(job.work / "checkpoint.pt", map_location="cpu", weights_only=False)["progress"]
        writer.put("history", saved.history)
        writer.put("seal", seal.record())
        writer.put("environment", environment(job.ctx.device))
        writer.finish("pruned")
        raise
    finally:
        job.listener.close()


def _select(spec: RunSpec, job: Job, progress: Progress) -> dict[str, Any]:
    """Choose the epoch on validation; of equal ones the first, as a person stopping early would have."""
    possible = candidates(job.method.stages(), job.recipe, progress.epoch)
    key = f"val_{spec.selection.metric}"
    values = [progress.history[e][key] for e in possible]
    place = int(np.argmax(values)) if spec.selection.rule == "val" else len(possible) - 1
    chosen = {"rule": spec.selection.rule, "metric": spec.selection.metric, "epoch": possible[place]}
    return {**chosen, "value": values[place], "candidates": possible}


def _adjusts(method: Method) -> bool:
    """Whether a method changes logits after the network; a fixed change needs no :meth:`Method.fit_posthoc`."""
    return any(getattr(type(method), hook) is not getattr(Method, hook) for hook in ("fit_posthoc", "adjust"))


def _load(job: Job, epoch: int) -> None:
    load_snapshot(job.work, epoch, job.model, job.method, job.ctx.device)


def _read(job: Job, images: Tensor, *, posthoc: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits (and features, if something after the head may need them) of images, before any adjustment."""
    estimator = has_estimator(job.method.stages())
    found = predict(job.method, job.model, images, job.recipe, estimator=estimator, features=posthoc)
    check_logits(found.logits, len(images), job.ctx.num_classes, job.method.card.name)
    return found.logits, found.features


def _ready(job: Job, epoch: int) -> None:
    """Bring the model and the method to an epoch, its adjustment fitted if the method adjusts."""
    _load(job, epoch)
    if _adjusts(job.method):
        _fitted_val(job)


def _fitted_val(job: Job) -> np.ndarray:
    """Logits of validation with the weights that are loaded, adjusted if the method adjusts; fits the adjustment."""
    posthoc = _adjusts(job.method)
    logits, features = _read(job, job.val.images, posthoc=posthoc)
    if posthoc:
        job.method.fit_posthoc(job.model, ValOutputs(logits=logits, labels=job.val.labels, features=features))
        logits = _adjusted(job, logits, features)
    return logits.astype(np.float32)


def _adjusted(job: Job, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
    changed = np.asarray(job.method.adjust(logits, features))
    check_logits(changed, len(logits), job.ctx.num_classes, f"{job.method.card.name}.adjust")
    return changed


def _score_test(spec: RunSpec, job: Job, store: Store, seal: Seal, chosen: dict[str, Any], roles: Roles,
                card: DatasetCard, writer: RunWriter) -> None:  # fmt: skip
    """Test logits of the selected epoch, and predicted classes of every candidate for the oracle.

    The labels are read last: no array of them exists while the method predicts.
    """
    rows = roles.rows["test"]
    with seal.reading():
        images = torch.from_numpy(store.images(rows)).to(job.ctx.device)
    posthoc = _adjusts(job.method)
    per_epoch = []
    for epoch in chosen["candidates"]:
        _ready(job, epoch)
        logits, features = _read(job, images, posthoc=posthoc)
        if posthoc:
            logits = _adjusted(job, logits, features)
        per_epoch.append(logits.argmax(1).astype(np.uint8))
        if epoch == chosen["epoch"]:
            selected = logits.astype(np.float32)
    with seal.reading():
        roles.labels["test"] = labels_of_test(spec, store, card, rows)
        groups = groups_of_test(store, rows)
    _write_outputs("test", selected, roles, writer)
    if groups is not None:
        writer.put("test_groups", groups)
    writer.put("test_epochs", np.stack(per_epoch))


def _write_outputs(role: str, logits: np.ndarray, roles: Roles, writer: RunWriter) -> None:
    writer.put(f"{role}_rows", roles.rows[role].astype(np.int64))
    writer.put(f"{role}_labels", roles.labels[role])
    writer.put(f"{role}_logits", logits)


def _probe(job: Job, chosen: dict[str, Any], spec: RunSpec) -> dict[str, Any]:
    """The batch-invariance probe on validation images; the test need not be open for it."""
    _ready(job, chosen["epoch"])
    n = min(PROBE_IMAGES, len(job.val.labels))
    index = np.linspace(0, len(job.val.labels) - 1, n).astype(np.int64)
    images = job.val.images[torch.as_tensor(index, device=job.val.images.device)]
    return probe(
        job.method, job.model, images, job.val.labels[index], job.recipe, seed=spec.seed,
        estimator=has_estimator(job.method.stages()), adjust=_adjusts(job.method),
    )  # fmt: skip


def _keep_model(job: Job, chosen: dict[str, Any], writer: RunWriter) -> None:
    _ready(job, chosen["epoch"])
    state = {"model": job.model.state_dict(), "method": job.method.state_dict()}
    write_with(writer.path / "model.pt", lambda f: torch.save(state, f))


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record."""
    names = ("torch", "timm", "numpy", "scikit-learn", "imbalanced-learn", "fer-bench")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": device.type,
        "hardware": gpu or _cpu_name(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": words(sys.argv[1:]),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown CPU"


def _timing(progress: Progress, started: datetime.datetime, clock: float, device: torch.device) -> dict[str, Any]:
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "total_seconds": round(time.perf_counter() - clock, 3),
        "epoch_seconds": [round(s, 3) for s in progress.seconds],
        "images_per_second": [round(s, 1) for s in progress.speeds],
        "resumed": progress.resumed,
        "device": device.type,
    }
