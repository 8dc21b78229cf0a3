"""The recipe: how long and how a network is trained, shared by all methods of a study.

Every default stands here, with its reason. Presets are starting points by hardware; any field can be set on the command
line with ``--set name=value``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fer_bench.contract.params import Choice, Param, Scale, Space
from fer_bench.errors import SpecError, abbreviated, unknown


def option(default: Any, help: str, *, choices: tuple | None = None, low: float | None = None,
           high: float | None = None, special: tuple = (), space: Space | None = None) -> Any:  # fmt: skip
    """A recipe field with its documentation, accepted values and search space."""
    param = Param(default, help, choices=choices, low=low, high=high, special=special, space=space)
    return dataclasses.field(default=default, metadata={"param": param})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe. All fields take part in a run's id."""

    epochs: int = option(10, "passes over the training fold", low=1, high=10_000)
    batch_size: int = option(128, "images a step; 128 in the public FER2013 recipes", low=2, high=8192)
    optimizer: str = option("sgd", "sgd (Nesterov) or adamw", choices=("sgd", "adamw"))
    lr: float = option(0.1, "peak learning rate", low=1e-7, high=10.0, space=Scale(0.1, 3.0))
    momentum: float = option(0.9, "Nesterov momentum, or AdamW's first beta", low=0.0, high=0.999)
    weight_decay: float = option(
        5e-4, "decay of weights; biases and norms have none", low=0.0, high=1.0, space=Scale(0.1, 10.0)
    )
    schedule: str = option(
        "cosine", "after warm-up: to zero by a cosine or a straight line, or constant",
        choices=("cosine", "linear", "constant"),
    )  # fmt: skip
    warmup_epochs: float = option(1.0, "epochs of linear warm-up", low=0.0, high=1000.0)
    label_smoothing: float = option(
        0.0, "share of a target spread evenly over all classes (Szegedy et al. 2016)", low=0.0, high=0.9,
        space=Choice((0.0, 0.05, 0.1)),
    )  # fmt: skip
    clip_norm: float = option(5.0, "largest gradient norm; 0 for none", low=0.0, high=1000.0)
    ema_decay: float = option(
        0.0, "decay of the average of weights that is evaluated; 0 for none", low=0.0, high=0.99999
    )
    drop_rate: float = option(0.0, "dropout before the classifier, where the backbone has it", low=0.0, high=0.9)
    precision: str = option("bf16", "bf16 autocast or plain fp32", choices=("bf16", "fp32"))
    image_size: int = option(
        0, "side to which images are resized on the device; 0 keeps the store's", low=16, high=1024, special=(0,)
    )
    flip: float = option(0.5, "probability of a horizontal flip", low=0.0, high=1.0)
    shift: float = option(4.0, "largest shift in pixels, both directions", low=0.0, high=256.0)
    rotate: float = option(10.0, "largest rotation in degrees", low=0.0, high=180.0)
    scale: float = option(0.0, "largest relative change of size", low=0.0, high=0.9)
    erase: float = option(0.0, "probability of one erased rectangle", low=0.0, high=1.0, space=Choice((0.0, 0.25)))
    test_flip: bool = option(False, "every prediction is the mean over an image and its mirror image, also on the test")

    @classmethod
    def options(cls) -> dict[str, Param]:
        """Field name -> its :class:`Param`."""
        return {f.name: f.metadata["param"] for f in dataclasses.fields(cls)}

    @classmethod
    def build(cls, base: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
        """A recipe from a preset's fields and given ones (text or values).

        Raises
        ------
        UnknownNameError
            A name is no recipe field; the nearest are given.
        SpecError
            A value does not fit.
        """
        known = cls.options()
        values = dict(base)
        for name, value in given.items():
            if name not in known:
                raise unknown(
                    "recipe field",
                    name,
                    known,
                    where=f"--set {abbreviated(name)}={abbreviated(value)}",
                    next="fer-bench list recipes",
                )
            values[name] = known[name].parse(value, name=name, owner="recipe")
        recipe = cls(**values)
        if recipe.warmup_epochs >= recipe.epochs:
            # a shorter run than the preset's must still reach its peak and come down again
            recipe = dataclasses.replace(recipe, warmup_epochs=recipe.epochs / 5)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named recipe with the backbone it was made for."""

    title: str
    backbone: str
    recipe: Mapping[str, Any]


PRESETS = {
    "brief": Preset(
        title="two minutes for four runs on two cores: six epochs on faces of 32 pixels, to see the whole of it work",
        backbone="resnet10_tiny",
        # on the built-in faces 73 % of the test in a third of the time in which ten epochs on 48 pixels reach 77 %; so
        # short a training does better with less augmentation (71 % with shifts of 2 pixels)
        recipe={
            "epochs": 6, "batch_size": 32, "optimizer": "adamw", "lr": 8e-3, "weight_decay": 0.05, "shift": 1.0,
            "rotate": 0.0, "image_size": 32,
        },
    ),
    "demo": Preset(
        title="minutes on a laptop: a tiny ResNet, for the built-in data and for trying things",
        backbone="resnet10_tiny",
        recipe={
            "epochs": 10, "batch_size": 32, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.02, "shift": 2.0,
            "rotate": 5.0,
        },
    ),
    "fast": Preset(
        title="minutes a run of FER2013 without a GPU: a tiny ResNet, six epochs, triangular schedule, flip at test",
        backbone="resnet10_tiny",
        # PrivateTest of FER2013, one seed, six epochs of resnet10_tiny: 57.7 %; with `shift`, `rotate` and no flip at
        # test as in "quick" 55.2 %, with SGD at 0.2 54.0 %, and "quick" itself 50.9 %
        recipe={
            "epochs": 6, "optimizer": "adamw", "lr": 6e-3, "weight_decay": 0.05, "label_smoothing": 0.1,
            "schedule": "linear", "warmup_epochs": 1.5, "shift": 2.0, "rotate": 5.0, "test_flip": True,
        },
    ),
    "quick": Preset(
        title="an evening on a CPU: ResNet-18 as timm has it, ten epochs",
        backbone="resnet18",
        # on FER2013 in eight epochs: AdamW 58.9 % of PrivateTest (docs/results), SGD at 0.1 56.9 % (one seed)
        recipe={"epochs": 10, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05, "label_smoothing": 0.1},
    ),
    "full": Preset(
        title="a GPU: small-input ResNet-18, a hundred epochs, as the public FER2013 code bases train",
        backbone="resnet18_small",
        recipe={"epochs": 100, "warmup_epochs": 5.0, "erase": 0.25},
    ),
}  # fmt: skip


def preset(name: str, *, has_gpu: bool) -> tuple[str, Preset]:
    """The preset called `name` and its resolved name: "auto" is "full" on a GPU and "quick" without one."""
    if name == "auto":
        name = "full" if has_gpu else "quick"
    if name not in PRESETS:
        raise unknown("recipe", name, [*PRESETS, "auto"], next="fer-bench list recipes")
    return name, PRESETS[name]


def parse_assignments(texts: tuple[str, ...], flag: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a dict; raises SpecError for text without an equals sign or a repeated name."""
    out: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise SpecError(f"'{abbreviated(text)}' is not name=value", where=flag, hint=f"{flag} lr=0.05")
        if name in out:
            raise SpecError(f"'{name}' is given twice", where=f"{flag} {abbreviated(text)}")
        out[name] = value
    return out
