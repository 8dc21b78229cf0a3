"""Whether a backbone takes the images of a study: tried with two of them before anything is trained.

Networks that halve their map too often, cut it into windows of a fixed size, or were made for one size only, fail in
ways that only their authors understand. So two images go through the network, forward and backward, once a study for
each backbone; runs that are finished need no trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fer_bench.backbones import Trunk, WeightsError, build_trunk, first_line
from fer_bench.errors import SpecError, UnknownNameError
from fer_bench.spec import RunSpec
from fer_bench.store import Store

if TYPE_CHECKING:
    from fer_bench.executor import Workplace

SIZES = (64, 96, 112, 128, 160, 192, 224, 256, 299)
PATIENCE = 30.0  # seconds for finding a size that works


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides whether a network can be built and takes its images of shape (C, H, W)."""

    backbone: str
    pretrained: bool
    drop_rate: float
    shape: tuple[int, int, int]

    def build(self) -> Trunk:
        """The network, as a run builds it."""
        channels, height, _ = self.shape
        return build_trunk(
            self.backbone, in_chans=channels, image_size=height, pretrained=self.pretrained, drop_rate=self.drop_rate
        )


def check_backbones(specs: Iterable[RunSpec], work: Workplace) -> None:
    """Raise SpecError where the backbone of a run can't take its images; the message names a size that works.

    `specs` are the runs that are still to be trained.

    Raises
    ------
    WeightsError
        Pretrained weights do not exist or can't be loaded.
    """
    for setting in dict.fromkeys(_setting(spec, work) for spec in specs):
        _check(setting)


def _setting(spec: RunSpec, work: Workplace) -> Setting:
    channels, height, width = Store.open(work.home.store(spec.dataset)).shape
    size = spec.recipe.image_size
    return Setting(
        backbone=spec.backbone, pretrained=spec.pretrained, drop_rate=spec.recipe.drop_rate,
        shape=(channels, size or height, size or width),
    )  # fmt: skip


def _check(setting: Setting) -> None:
    try:
        _try(setting)
    except (UnknownNameError, WeightsError):
        raise
    except Exception as error:
        side = "x".join(map(str, setting.shape[1:]))
        size = _size_that_works(setting)
        hint = f"images of {size}x{size} go through it" if size else "none of the usual image sizes goes through it"
        next = f"the same command with --set image_size={size}" if size else "fer-bench list backbones"
        raise SpecError(
            f"backbone '{setting.backbone}' can't take images of {side} pixels",
            where=first_line(error),
            hint=f"{hint}; resnet18_small takes any size",
            next=next,
        ) from error


def _try(setting: Setting) -> None:
    """Put two images through the network in training mode, forward and backward."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        trunk = setting.build().train()
        _, features = trunk(torch.randn(2, *setting.shape))
        if features.shape != (2, trunk.num_features):
            raise ValueError(f"its features are {tuple(features.shape)}, where {(2, trunk.num_features)} were expected")
        features.sum().backward()


def _size_that_works(setting: Setting) -> int | None:
    """The smallest of the usual sizes that goes through the network, as far as it is found in reasonable time."""
    end = time.monotonic() + PATIENCE
    for size in SIZES:
        if time.monotonic() > end:
            break
        try:
            _try(replace(setting, pretrained=False, shape=(setting.shape[0], size, size)))
        except Exception:
            continue
        return size
    return None
