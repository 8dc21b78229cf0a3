"""Snapshots, which hold what is evaluated after an epoch, and checkpoints, which hold everything to go on from.

All files are plain data with a format number (:mod:`fer_bench.training.plain`): reading one runs no code, so that a
record from somebody else may be opened.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fer_bench.base.files import write_with
from fer_bench.contract.batch import Resampled
from fer_bench.contract.method import Method
from fer_bench.errors import LedgerError
from fer_bench.training.job import FORMAT, Job, Progress
from fer_bench.training.optim import Ema
from fer_bench.training.plain import pack, unpack


def save_plain(path: Path, state: Mapping[str, Any], owner: str = "state") -> None:
    """Write a state atomically; raises TrainingError where it holds more than plain data."""
    content = {"format": FORMAT, "state": pack(state, owner)}
    write_with(path, lambda f: torch.save(content, f))


def load_plain(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what :func:`save_plain` wrote, without running any code that the file may hold.

    Raises
    ------
    LedgerError
        The file is damaged, holds more than plain data, or was written by another version.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise LedgerError(f"{path.name} is missing", where=str(path)) from error
    except Exception as error:
        if any(module.split(".")[0] == "fer_bench" for module in _modules_named(path)):  # before there was a format
            raise _other_version(path, None) from error
        reason = "holds code, which is not run" if "weights_only" in str(error).lower() else "is damaged"
        raise LedgerError(f"{path.name} {reason}", where=str(path)) from error
    written = content.get("format") if isinstance(content, dict) else None
    if written != FORMAT:
        raise _other_version(path, written)
    return unpack(content["state"])


def _other_version(path: Path, written: Any) -> LedgerError:
    theirs = "" if written is None else f" (format {written})"
    return LedgerError(
        f"{path.name} was written by another version of fer-bench{theirs}",
        where=str(path),
        hint=f"this version reads format {FORMAT}: read it with the version that wrote it, or train the run again",
    )


def _modules_named(path: Path) -> set[str]:
    """Modules whose classes a file of ``torch.save`` names; its pickle is listed, and not run."""
    names: set[str] = set()
    try:
        with zipfile.ZipFile(path) as file:
            (member,) = (name for name in file.namelist() if name.endswith("data.pkl"))
            for code, argument, _ in pickletools.genops(file.read(member)):
                if code.name == "GLOBAL":  # torch.save writes protocol 2, which has no other instruction for a class
                    names.add(str(argument).split(" ")[0])
    except Exception:  # a damaged file may raise anything
        pass
    return names


def save_model(file: Path, model: nn.Module, method: Method) -> None:
    """Keep weights and the method's state."""
    save_plain(file, {"model": model.state_dict(), "method": method.state_dict()}, f"{method.card.name}.state_dict()")


def load_model(file: Path, model: nn.Module, method: Method, device: torch.device) -> None:
    """Bring a model and its method to what :func:`save_model` kept."""
    state = load_plain(file, device)
    model.load_state_dict(state["model"])
    method.load_state_dict(state["method"])


def save_fold(file: Path, made: Resampled) -> None:
    """Keep what a stage made of the training fold."""
    save_plain(file, {"index": made.index, "images": made.images, "labels": made.labels}, "resampled fold")


def load_fold(file: Path, device: torch.device) -> Resampled:
    """Read what :func:`save_fold` kept."""
    return Resampled(**load_plain(file, device))


def save_checkpoint(job: Job, progress: Progress, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Write everything that training needs to go on from here."""
    state = {
        "progress": vars(progress),
        "model": job.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": None if ema is None else {"model": ema.model.state_dict(), "steps": ema.steps},
        "method": job.method.state_dict(),
    }
    save_plain(job.work / "checkpoint.pt", state, f"checkpoint of {job.method.card.name}")


def load_progress(work: Path) -> Progress:
    """How far the checkpoint in `work` had come."""
    return Progress(**load_plain(work / "checkpoint.pt")["progress"])


def load_checkpoint(job: Job) -> dict[str, Any] | None:
    """The checkpoint, with model and method brought to its state; None where there is none that can be used.

    If it or a stage's fold can't be read, the run starts again from its beginning, which loses nothing but time. The
    checkpoint is removed then, for it must not be combined with a fold that is made anew.
    """
    file, folds = job.work / "checkpoint.pt", sorted(job.work.glob("fold_*.pt"))
    bad_folds, bad_checkpoint = _unreadable(folds), _unreadable([file] if file.exists() else [])
    for error in (bad_folds + bad_checkpoint)[:1]:
        job.listener.warn(f"{error.what}: the run starts again from its beginning ({error.where})")
        for path in (file, *(folds if bad_folds else ())):
            path.unlink(missing_ok=True)
    if not file.exists():
        return None
    saved = load_plain(file, job.ctx.device)
    job.model.load_state_dict(saved["model"])
    job.method.load_state_dict(saved["method"])
    return {**saved, "progress": Progress(**saved["progress"])}


def _unreadable(files: Iterable[Path]) -> list[LedgerError]:
    """Why files can't be read, one error for each of those that can't."""
    errors = []
    for file in files:
        try:
            load_plain(file)
        except LedgerError as error:
            errors.append(error)
    return errors


def restore(job: Job, saved: dict, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Bring a stage that has been set up anew to where the checkpoint was taken."""
    job.model.load_state_dict(saved["model"])  # again: re-initialised parts have been reset since
    job.method.load_state_dict(saved["method"])
    optimizer.load_state_dict(saved["optimizer"])
    if ema and saved["ema"]:
        ema.model.load_state_dict(saved["ema"]["model"])
        ema.steps = saved["ema"]["steps"]
