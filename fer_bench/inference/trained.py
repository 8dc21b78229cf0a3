"""The trained network of a finished run, brought back from its record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.base.files import sha256_file
from fer_bench.contract.method import Method
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.data.image_files import STRETCH, ImageFit
from fer_bench.data.store import Store
from fer_bench.errors import FerBenchError, LedgerError, StoreError, TrainingError, UnknownNameError
from fer_bench.record.home import Home
from fer_bench.record.ledger import RunRecord
from fer_bench.record.lookup import require_finished
from fer_bench.runs.blame import frame_to_blame
from fer_bench.runs.order import context_of
from fer_bench.runs.spec import RunSpec
from fer_bench.runs.worker import build_model, raw_logits
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.evaluate import EVAL_BATCH, adjusted, adjusts
from fer_bench.training.job import Runtime

BATCH = 256  # images that are predicted together
MOST = EVAL_BATCH
LARGEST = 4096  # pixels of a side; a record with more is damaged


@dataclass(frozen=True)
class Trained:
    """A method with its trained network.

    Attributes
    ----------
    fit : ImageFit
        What an image is brought to, as those of the run's data were.
    notes : tuple of str
        What a reader of its predictions should know.
    """

    record: RunRecord
    spec: RunSpec
    plugin: Plugin
    method: Method
    model: nn.Module
    device: torch.device
    fit: ImageFit
    transductive: bool
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.method.ctx.classes

    def on_device(self, images: np.ndarray) -> Tensor:
        """Images uint8 [n, C, H, W] on the network's device."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device)

    def batches(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """The images as they may be read together: those of a transductive method one by one."""
        step = 1 if self.transductive else MOST
        yield from (images[start : start + step] for start in range(0, len(images), step))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [n, K] of images uint8 [n, C, H, W], computed as those of the test were.

        The images are one batch; a transductive method is given one image at a time.
        """
        fits, parts = adjusts(type(self.method)), []
        with blaming(self.plugin):
            for some in self.batches(images):
                logits, features = raw_logits(
                    self.method, self.model, self.on_device(some), self.spec.recipe, features=fits
                )
                parts.append(adjusted(self.method, logits, features) if fits else logits)
        return np.concatenate(parts).astype(np.float32)


@contextlib.contextmanager
def blaming(plugin: Plugin) -> Iterator[None]:
    """Turn errors of a method's own code into messages that name its line; other errors pass."""
    try:
        yield
    except FerBenchError:
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the device ran out of memory", hint="use a smaller --batch-size, or --device cpu"
        ) from error
    except Exception as error:
        frame = frame_to_blame(error, plugin.path)
        if frame is None:
            raise
        raise TrainingError(
            f"'{plugin.card.name}' raised {type(error).__name__}: {error}",
            where=f"{frame.filename}:{frame.lineno}, in {frame.name}",
            next=f"fer-bench check {plugin.card.name}",
        ) from error


def load_trained(
    record: RunRecord, home: Home, plugins: Plugins, *, device: str = "auto", how: str | None = None
) -> Trained:
    """The method and the network that a finished run selected; the test is not opened.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", ...
    how : str, optional
        How an image of another shape is fitted: "stretch", "pad" or "crop"; by default as the run's data were.

    Raises
    ------
    LedgerError
        The run is unfinished, or its record holds no weights, or damaged ones, or no longer fits the method's code.
    UnknownNameError
        There is no such method here.
    """
    require_finished(record, home.ledger)
    _require_weights(record)
    spec, where = RunSpec.from_dict(record.spec), Runtime(device=device).resolve()
    plugin = _plugin(spec.method, plugins)
    shape, bits = _shape(record, home)
    fit = ImageFit(*shape, how or str(spec.dataset_params.get("fit", STRETCH)), bits)
    with blaming(plugin):
        method: Method = plugin.load()(spec.params)
        counts = record.data["counts"]["train"]
        method.ctx = context_of(spec, shape, record.data["classes"], counts, where)
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            model = build_model(spec, method, where, pretrained=False, use_compile=False)
        _load_state(record, model, method, where, plugins)
    transductive = any(record.has(f"{n}.json") and record.json(n).get("transductive") for n in ("probe", "method"))
    notes = _notes(record, plugin, transductive=bool(transductive))
    return Trained(record, spec, plugin, method, model, where, fit, bool(transductive), notes)


def _require_weights(record: RunRecord) -> None:
    """Raise LedgerError unless the record holds the weights that the run wrote."""
    if not record.has("model.pt"):
        stored = record.has("test_logits.npy")
        raise LedgerError(
            f"the record of run {record.id} holds no weights, so it can't predict new images",
            where=str(record.path),
            hint="published ledgers leave model.pt out; put it back, or train the run again in another home"
            + ("; its predictions of the test images are stored, and the command below shows them" * stored),
            next=f"fer-bench predict {record.id} --test" if stored else "fer-bench list runs",
        )
    digest = record.json("done")["files"].get("model.pt")
    if digest is not None and digest != sha256_file(record.path / "model.pt"):
        raise LedgerError(
            f"run {record.id}: model.pt has changed since the run",
            where=str(record.path / "model.pt"),
            hint="copy the record again from where it was written",
        )


def _plugin(name: str, plugins: Plugins) -> Plugin:
    try:
        return plugins.method(name)
    except UnknownNameError as error:
        hint = "the run was trained with a method that is not found here; name its folder with --plugins DIR"
        raise UnknownNameError(error.what, hint=hint, next="fer-bench list methods") from None


def _shape(record: RunRecord, home: Home) -> tuple[tuple[int, int, int], int]:
    """Shape (C, H, W) of the images that the run was trained on, and the depth of its 16-bit sources.

    Records of earlier versions do not tell; then the store does, if it is here.
    """
    shape, bits = record.data.get("shape"), record.data.get("bits", 16)
    if shape is None:
        dataset = str(record.data.get("dataset"))
        with contextlib.suppress(StoreError):
            store = Store.open(home.store(dataset), verify=False)
            if store.fingerprint == record.data.get("fingerprint"):
                return store.shape, store.bits
        raise LedgerError(
            f"the record of run {record.id} does not say what shape its images have",
            where=str(record.path / "data.json"),
            hint="an earlier version wrote it; with the run's data prepared in this home, the shape is known",
            next=f"fer-bench data prepare {dataset}",
        )
    sizes = shape if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else []
    if (
        len(sizes) != 3
        or sizes[0] not in (1, 3)
        or not all(0 < n <= LARGEST for n in sizes)
        or bits not in range(8, 17)
    ):
        what = f"the record of run {record.id} is damaged: images can't have the shape {shape!r:.80}"
        raise LedgerError(what, where=str(record.path / "data.json"))
    return (sizes[0], sizes[1], sizes[2]), bits


def _load_state(record: RunRecord, model: nn.Module, method: Method, device: torch.device, plugins: Plugins) -> None:
    """Bring network and method to the selected epoch; a read-out's record has the state of both methods."""
    state = load_plain(Path(record.path / "model.pt"), device)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise LedgerError(
            f"the weights of run {record.id} don't fit the network that '{method.card.name}' builds now",
            where=str(record.path / "model.pt"),
            hint=f"its code has changed since the run: {lines[1].strip() if len(lines) > 1 else lines[0]}",
            next=f"fer-bench show {method.card.name}",
        ) from None
    if method.card.readout_of:
        network: Any = plugins.method(method.card.readout_of).load()
        if isinstance(method, network):
            network.load_state_dict(method, state["method"])
    method.load_state_dict(state["method"])
    model.eval()


def _notes(record: RunRecord, plugin: Plugin, *, transductive: bool) -> tuple[str, ...]:
    notes = []
    if plugin.source_hash() != record.json("spec").get("source"):
        notes.append(
            f"the code of '{plugin.card.name}' is not that of the run, so predictions may differ from recorded ones"
        )
    if transductive:
        notes.append(
            f"'{plugin.card.name}' reads the other images of a batch (transductive). Here each image is predicted "
            "alone, so a prediction may differ from the recorded one"
        )
    return tuple(notes)
