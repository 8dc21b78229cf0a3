"""Snapshots, which hold what is evaluated after an epoch, and checkpoints, which hold everything to go on from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fer_bench.atomic import write_with
from fer_bench.method import Method
from fer_bench.optim import Ema

if TYPE_CHECKING:
    from fer_bench.fit import Job, Progress


def save_snapshot(work: Path, epoch: int, model: nn.Module, method: Method) -> None:
    """Keep the evaluated weights and the method's state of an epoch."""
    state = {"model": model.state_dict(), "method": method.state_dict()}
    write_with(work / f"snapshot_{epoch:04d}.pt", lambda f: torch.save(state, f))


def load_snapshot(work: Path, epoch: int, model: nn.Module, method: Method, device: torch.device) -> None:
    """Load what :func:`save_snapshot` kept."""
    state = torch.load(work / f"snapshot_{epoch:04d}.pt", map_location=device, weights_only=False)
    model.load_state_dict(state["model"])
    method.load_state_dict(state["method"])


def save_checkpoint(job: Job, progress: Progress, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Write everything that training needs to go on from here."""
    state = {
        "progress": progress,
        "model": job.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": None if ema is None else {"model": ema.model.state_dict(), "steps": ema.steps},
        "method": job.method.state_dict(),
    }
    write_with(job.work / "checkpoint.pt", lambda f: torch.save(state, f))


def load_checkpoint(job: Job) -> dict | None:
    """What :func:`save_checkpoint` kept, with the model and the method restored; None to start from the beginning."""
    file = job.work / "checkpoint.pt"
    if not file.exists():
        return None
    try:
        saved = torch.load(file, map_location=job.ctx.device, weights_only=False)
    except Exception as error:  # it was written in one piece, so the disk is to blame; starting again loses time only
        told = f"{file} is damaged ({type(error).__name__}): the run starts again from its beginning"
        warnings.warn(told, stacklevel=2)
        return None
    job.model.load_state_dict(saved["model"])
    job.method.load_state_dict(saved["method"])
    return saved


def restore(job: Job, saved: dict, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Bring a stage that has been set up anew to where the checkpoint was taken."""
    job.model.load_state_dict(saved["model"])  # again: re-initialised parts have been reset since
    job.method.load_state_dict(saved["method"])
    optimizer.load_state_dict(saved["optimizer"])
    if ema and saved["ema"]:
        ema.model.load_state_dict(saved["ema"]["model"])
        ema.steps = saved["ema"]["steps"]
