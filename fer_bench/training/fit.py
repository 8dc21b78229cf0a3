"""The training loop.

One pass through :func:`fit` takes a method through its stages. After every epoch the validation fold is predicted, the
evaluated weights are kept as a snapshot, and a checkpoint holds everything needed to go on: a run that is killed at any
instant replays at most the epochs since the last checkpoint and ends in bitwise the same weights.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.base.files import write_array
from fer_bench.contract.batch import Batch, LossOut, Resampled, TrainView
from fer_bench.contract.method import Stage, checked
from fer_bench.contract.streamed import chosen
from fer_bench.errors import PrunedTrial, TrainingError
from fer_bench.rng import seed_all
from fer_bench.stats import confusion
from fer_bench.training.checkpoint import (
    load_checkpoint,
    load_fold,
    restore,
    save_checkpoint,
    save_fold,
    save_model,
)
from fer_bench.training.dataplane import DataPlane, check_positions
from fer_bench.training.evaluate import autocast, check_logits, class_dtype, predict
from fer_bench.training.job import Job, Progress, logits_file, snapshot_file
from fer_bench.training.optim import Ema, freeze, learning_rate, make_optimizer, reinitialise, train_mode, ungrouped
from fer_bench.training.recipe import Recipe
from fer_bench.training.second_pass import SecondPass, looks_twice


def fit(job: Job) -> Progress:
    """Train through all stages; the history has one entry an epoch.

    Raises
    ------
    TrainingError
        The loss is not finite, or a hook returned something unusable.
    """
    stages = job.method.stages()
    if not any(s.kind in ("gradient", "estimator") for s in stages):
        raise TrainingError(f"'{job.method.card.name}' has no stage that trains anything")
    seed_all(job.ctx.seed, "fit")
    job.method.on_fit_start(job.model, job.view)
    saved = load_checkpoint(job)
    progress: Progress = saved["progress"] if saved else Progress()
    progress.resumed += bool(saved)
    first = progress.stage
    total = sum(s.length(job.recipe.epochs) for s in stages)
    job.listener.start(total, job.ctx.steps_per_epoch, progress.epoch)
    for number, stage in enumerate(stages):
        view = _view_of_stage(job, stages, number, progress)
        if number < first:
            continue
        if stage.kind == "gradient":
            _gradient_stage(job, stage, view, progress, saved if number == first else None)
        elif stage.kind == "estimator":
            _estimator_stage(job, stage, view)
        progress.stage, progress.epoch_in_stage = number + 1, 0
    if stages[-1].kind != "gradient":
        untrained = {"stage": stages[-1].name, "lr": None, "train_loss": None, "train_accuracy": None}
        _score_epoch(job, job.model, progress, untrained, estimator=has_estimator(stages))
    return progress


def candidates(stages: list[Stage], recipe: Recipe, epochs: int) -> list[int]:
    """Epochs that may be selected: those of the last gradient stage, or the final state after an estimator."""
    if stages[-1].kind != "gradient":
        return [epochs - 1]
    return list(range(epochs - stages[-1].length(recipe.epochs), epochs))


def has_estimator(stages: list[Stage]) -> bool:
    """Whether predictions come from a fitted estimator: it is the last thing that was trained."""
    return [s.kind for s in stages if s.kind in ("gradient", "estimator")][-1:] == ["estimator"]


# -- stages ----------------------------------------------------------------------------------------------------------


def _view_of_stage(job: Job, stages: list[Stage], number: int, progress: Progress) -> TrainView:
    """The training fold as the stages before `number` left it; what they made is kept on disk for a resume."""
    view = job.view
    for k in range(number + 1):
        stage, file = stages[k], job.work / f"fold_{k}.pt"
        if stage.kind not in ("resample", "generate"):
            continue
        if not file.exists():
            seed_all(job.ctx.seed, "stage", stage.name)
            if stage.kind == "resample":
                made = job.method.resample(stage, view)
            else:
                made = job.method.generate(stage, job.model, view)
            checked(made, Resampled, stage.kind, job.method)
            save_fold(file, made)
        view = _replaced(view, load_fold(file, job.ctx.device), stage)
    return view


def _replaced(view: TrainView, made: Resampled, stage: Stage) -> TrainView:
    if made.index is not None:
        check_positions(made.index, len(view), f"stage '{stage.name}'")
        part: dict[str, Any] = {"images": chosen(view.images, made.index), "labels": view.labels[made.index]}
        part["groups"] = None if view.groups is None else view.groups[made.index]
        part["soft"] = None if view.soft is None else view.soft[made.index]
        return TrainView(num_classes=view.num_classes, **part)
    images, labels = made.images, made.labels
    if (images is None or labels is None or images.dtype != torch.uint8
            or images.shape[1:] != view.images.shape[1:] or len(images) != len(labels)):  # fmt: skip
        shape = " x ".join(map(str, view.images.shape[1:]))
        raise TrainingError(
            f"a stage must give an index, or uint8 images [M, {shape}] and M labels", where=f"stage '{stage.name}'"
        )
    return TrainView(images=images.to(view.images.device), labels=np.asarray(labels), num_classes=view.num_classes)


def _estimator_stage(job: Job, stage: Stage, view: TrainView) -> None:
    plane = DataPlane(view, job.recipe, job.ctx.seed)
    was = job.model.training
    job.model.eval()
    with torch.inference_mode(), autocast(job.recipe, job.ctx.device):
        parts = [job.method.extract(job.model, b.x).float().cpu() for b in plane.clean()]
    job.model.train(was)
    seed_all(job.ctx.seed, "stage", stage.name)
    job.method.fit_estimator(torch.cat(parts).numpy(), view.labels)


def _gradient_stage(job: Job, stage: Stage, view: TrainView, progress: Progress, saved: dict | None) -> None:
    reinitialise(job.model, stage, job.ctx.seed)
    freeze(job.model, stage)
    seed_all(job.ctx.seed, "stage", stage.name)
    job.method.on_stage_start(stage, job.model, view)
    optimizer = make_optimizer(job.method, job.model, job.recipe, stage)
    ema = Ema(job.model, job.recipe.ema_decay) if job.recipe.ema_decay else None
    if saved:
        restore(job, saved, optimizer, ema)
    plane = DataPlane(view, job.recipe, job.ctx.seed)
    epochs = stage.length(job.recipe.epochs)
    last_save = time.monotonic()
    for k in range(progress.epoch_in_stage, epochs):
        started = time.perf_counter()
        stats, images, steps = _train_epoch(job, stage, plane, optimizer, ema, progress.epoch, k, epochs)
        trained = time.perf_counter() - started
        entry = {"stage": stage.name, **stats}
        evaluated = ema.model if ema else job.model
        job.method.before_eval(evaluated, plane.clean)
        progress.speeds.append(images * steps / trained)
        _score_epoch(job, evaluated, progress, entry)
        progress.epoch_in_stage = k + 1
        progress.seconds.append(time.perf_counter() - started)
        due = time.monotonic() - last_save >= job.runtime.checkpoint_seconds or k + 1 == epochs
        if due and job.keeps(progress.epoch - 1):
            save_checkpoint(job, progress, optimizer, ema)
            last_save = time.monotonic()
        try:
            job.listener.epoch(progress.history[-1])
        except PrunedTrial:
            save_checkpoint(job, progress, optimizer, ema)  # the record of a pruned trial takes its history from there
            raise
    if ema:
        job.model.load_state_dict(ema.model.state_dict())
    for parameter in job.model.parameters():
        parameter.requires_grad_(True)


def _train_epoch(job: Job, stage: Stage, plane: DataPlane, optimizer: torch.optim.Optimizer, ema: Ema | None,
                 epoch: int, epoch_in_stage: int, epochs: int) -> tuple[dict[str, float], int, int]:  # fmt: skip
    """One pass; returns training statistics, images a step and the number of steps."""
    method, model, device = job.method, job.model, job.ctx.device
    seed_all(job.ctx.seed, "epoch", epoch)  # dropout and the like: an epoch can be replayed from its number
    train_mode(model, stage)
    method.on_epoch_start(epoch, model)
    steps, batches = plane.epoch(method.streams(stage), stage.name, epoch)
    sums = torch.zeros(4, dtype=_sum_type(device), device=device)  # loss, images, images predicted, predicted right
    loose, images = ungrouped(model, optimizer), 0
    for step, batch in enumerate(batches):
        lr = learning_rate(job.recipe, stage, epoch_in_stage + step / steps, epochs)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        batch = checked(method.on_batch(batch), Batch, "on_batch", method)
        if job.recipe.label_smoothing:
            batch = _smooth(batch, job.recipe.label_smoothing, job.ctx.num_classes)
        method.moment = (stage.name, epoch, step)
        again = SecondPass(model, autocast(job.recipe, device), batch.generator) if looks_twice(method) else None
        with autocast(job.recipe, device):
            loss = checked(method.training_step(model, batch), LossOut, "training_step", method)
        _step(job, batch, loss, optimizer, again, loose)
        if ema:
            ema.update(model)
        method.on_step_end(model, batch, loss)
        images = len(batch.y)
        sums += _tally(loss, batch)
        if step % 50 == 49 and device.type == "cpu":  # a GPU would have to be waited for
            _check_finite(sums, job, epoch, step, lr)
        job.listener.step(images)
    _check_finite(sums, job, epoch, step, lr)
    total, seen, predicted, right = sums.cpu().tolist()
    stats = {"lr": lr, "train_loss": total / seen}
    if predicted:  # a stage may train something else than a classifier
        stats["train_accuracy"] = right / predicted
    method.on_epoch_end(epoch, stats)
    return {"epoch": epoch, **stats}, images, steps


def _step(job: Job, batch: Batch, loss: LossOut, optimizer: torch.optim.Optimizer, again: SecondPass | None,
          loose: list[nn.Parameter]) -> None:  # fmt: skip
    optimizer.zero_grad(set_to_none=True)
    for weight in loose:
        weight.grad = None  # it must not pile up in the norm
    if again is None:
        loss.total.backward()
    else:
        job.method.backward(job.model, batch, loss, again)
    job.method.grad_hook(job.model)
    if job.recipe.clip_norm:
        nn.utils.clip_grad_norm_(job.model.parameters(), job.recipe.clip_norm)
    optimizer.step()


def _sum_type(device: torch.device) -> torch.dtype:
    """What sums over an epoch are kept in; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _tally(loss: LossOut, batch: Batch) -> Tensor:
    """Loss x images, images, images predicted, and right: summed on the device, so that no step waits for it."""
    n, kind = len(batch.y), _sum_type(batch.y.device)
    total = loss.total.detach().to(kind) * n
    images = torch.full_like(total, n)
    if loss.output is None or len(loss.output.logits) != n:
        return torch.stack([total, images, torch.zeros_like(total), torch.zeros_like(total)])
    right = (loss.output.logits.detach().argmax(1) == batch.y).sum().to(kind)
    return torch.stack([total, images, images, right])


def _check_finite(sums: Tensor, job: Job, epoch: int, step: int, lr: float) -> None:
    if not bool(torch.isfinite(sums[0])):
        raise TrainingError(
            f"the loss of '{job.method.card.name}' is not finite",
            where=f"epoch {epoch + 1}, by step {step + 1}, learning rate {lr:.3g}, seed {job.ctx.seed}",
            hint=f"lower lr (now {job.recipe.lr}), set clip_norm, or use precision=fp32",
            next="the same command with --set lr=" + f"{job.recipe.lr / 10:.3g}",
        )


def _smooth(batch: Batch, share: float, classes: int) -> Batch:
    aux = {name: _smooth(other, share, classes) for name, other in batch.aux.items()}
    return batch.with_(soft=batch.soft_target(classes), smoothing=share, aux=aux)


def _score_epoch(job: Job, model: nn.Module, progress: Progress, entry: dict, *, estimator: bool = False) -> None:
    """Predict validation, note the scores, keep the evaluated weights."""
    predicted = predict(job.method, model, job.val.images, job.recipe, estimator=estimator)
    classes = job.ctx.num_classes
    check_logits(predicted.logits, len(job.val.labels), classes, job.method.card.name)
    predictions = predicted.logits.argmax(1).astype(class_dtype(classes))
    matrix = confusion.confusion_matrix(job.val.labels, predictions, classes)
    scores = {f"val_{name}": float(score(matrix)) for name, score in confusion.SCORES.items()}
    recall = [None if np.isnan(r) else float(r) for r in confusion.recalls(matrix)]
    loss = _cross_entropy(predicted.logits, job.val.labels)
    progress.history.append({**entry, "epoch": progress.epoch, "val_loss": loss, **scores, "val_recall": recall})
    progress.predictions.append(predictions)
    if job.keeps(progress.epoch):
        save_model(snapshot_file(job.work, progress.epoch), model, job.method)
        write_array(logits_file(job.work, progress.epoch), predicted.logits)
    progress.epoch += 1


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))
