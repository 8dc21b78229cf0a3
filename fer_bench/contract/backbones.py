"""Backbones: any timm model by name, and small-input ResNets registered in timm's own registry.

The small-input ResNets keep 48-pixel faces at a useful resolution: a 3x3 stem of stride 1 and no max-pooling, as in the
CIFAR models of He et al. 2016 (arXiv 1512.03385, section 4.2) and the public FER2013 code bases, with global pooling.
"""

from __future__ import annotations

import time
from types import MethodType
from typing import Any

import timm
import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from fer_bench.contract.backbone_names import check_backbone
from fer_bench.contract.batch import Output
from fer_bench.errors import FerBenchError, SpecError, UnknownNameError, WeightsError, unknown


def _small_resnet(
    layers: tuple[int, ...], in_chans: int = 3, num_classes: int = 1000, stem_stride: int = 1, **kwargs: Any
) -> ResNet:
    for ignored in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(ignored, None)
    model: Any = ResNet(BasicBlock, layers, num_classes=num_classes, in_chans=in_chans, **kwargs)  # type: ignore[arg-type]
    stem = nn.Conv2d(in_chans, model.conv1.out_channels, kernel_size=3, stride=stem_stride, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1, model.maxpool = stem, nn.Identity()
    return model


def _refuse_weights(pretrained: bool, name: str) -> None:
    if pretrained:
        raise WeightsError(f"there are no pretrained weights for '{name}'", hint="--no-pretrained, or a timm backbone")


@register_model
def resnet18_small(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-18 for small images: 11.2 M parameters, an 8th of the input's side at the last map."""
    _refuse_weights(pretrained, "resnet18_small")
    return _small_resnet((2, 2, 2, 2), **kwargs)


@register_model
def resnet34_small(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-34 for small images."""
    _refuse_weights(pretrained, "resnet34_small")
    return _small_resnet((3, 4, 6, 3), **kwargs)


@register_model
def resnet10_tiny(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """A narrow four-block ResNet for demonstrations and tests: 0.3 M parameters, a 16th of the side at the last map.

    Its stem has stride 2: on a CPU that trains 3.6 times as many images a second as stride 1.
    """
    _refuse_weights(pretrained, "resnet10_tiny")
    kwargs |= {"channels": (16, 32, 64, 128), "stem_stride": 2}
    return _small_resnet((1, 1, 1, 1), **kwargs)


class Trunk(nn.Module):
    """A timm model without its classifier.

    Calling it gives ``(fmap, features)``: the last map [B, D', H', W'] (whatever shape the model family uses) and the
    pooled features [B, D]. `num_features` is D.
    """

    body: Any  # a timm model: its methods are not nn.Module's

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body
        self.num_features: int = getattr(self.body, "head_hidden_size", None) or self.body.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map and pooled features of images `x` [B, C, H, W]."""
        fmap = self.body.forward_features(x)
        return fmap, self.pool(fmap)

    def compile_features(self) -> None:
        """Let torch.compile translate the way to the last map: where the time goes, and what every method calls.

        The compiled function is bound like a method, so a deep copy (weight averaging) runs it on its own weights.
        """
        self.body.forward_features = MethodType(torch.compile(type(self.body).forward_features), self.body)

    def pool(self, fmap: Tensor) -> Tensor:
        """Pooled features [B, D] of a map, by the model's own pooling."""
        return self.body.forward_head(fmap, pre_logits=True)


class Classifier(nn.Module):
    """A trunk and a linear head. The head runs in float32 under any autocast, so that logits have no ties.

    bfloat16 has 8 bits of mantissa: computed in it, the two best logits of a few images in a thousand come out equal.
    """

    def __init__(self, trunk: Trunk, num_classes: int):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, num_classes)

    def forward(self, x: Tensor) -> Output:
        """Logits [B, K], features [B, D] and map of images `x` [B, C, H, W]."""
        fmap, features = self.trunk(x)
        return Output(logits=self.classify(features), features=features, fmap=fmap)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] of features [B, D], in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())


def build_trunk(
    name: str, *, in_chans: int, image_size: int, pretrained: bool = False, drop_rate: float = 0.0
) -> Trunk:
    """Create a timm model without its classifier.

    Raises
    ------
    UnknownNameError
        timm has no such model, or no such tag of it; the nearest names are given.
    WeightsError
        There are no pretrained weights, or they can't be fetched.
    SpecError
        The model can't be built for such images.
    """
    check_backbone(name)
    _check_tag(name)
    if pretrained:
        _check_weights(name)
    kwargs: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans, "drop_rate": drop_rate}
    try:
        return Trunk(_create(name, image_size, pretrained=pretrained, **kwargs))
    except FerBenchError:
        raise
    except Exception as error:
        if not pretrained or not _builds(name, image_size, kwargs):
            what = f"backbone '{name}' can't be built for images of {image_size} pixels: {_first_line(error)}"
            raise SpecError(what, where=f"--backbone {name}", hint="resnet18_small takes any size") from error
        raise WeightsError(
            f"the pretrained weights of '{name}' can't be loaded: {_first_line(error)}",
            where=f"--backbone {name} --pretrained",
            hint="they come from a hub: check the connection, or put them into its cache (HF_HOME) on this machine",
            next="the same command with --no-pretrained",
        ) from error


def _create(name: str, image_size: int, **kwargs: Any) -> nn.Module:
    try:
        return timm.create_model(name, img_size=image_size, **kwargs)
    except TypeError:  # only models with position embeddings take img_size
        return timm.create_model(name, **kwargs)


def _builds(name: str, image_size: int, kwargs: dict[str, Any]) -> bool:
    """Whether the model can be built from scratch: then it is the weights that are at fault."""
    try:
        _create(name, image_size, **kwargs)
    except Exception:
        return False
    return True


def _check_tag(name: str) -> None:
    """Raise UnknownNameError where timm has the model but not the set of weights named after the dot."""
    model, dot, tag = name.partition(".")
    tags = [m.partition(".")[2] for m in timm.list_models(f"{model}.*", include_tags=True)] if dot else []
    if dot and tag not in tags:
        raise unknown(f"tag of {model}", tag, tags, where=f"--backbone {name}", next=f"--backbone {model}")


def _check_weights(name: str) -> None:
    """Raise WeightsError where timm knows of no weights."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"there are no pretrained weights for '{name}'",
            where=f"--backbone {name} --pretrained",
            hint="--no-pretrained trains it from scratch; resnet18 has weights",
            next="fer-bench list backbones",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


# -- whether a network takes the images of a study -------------------------------------------------------------------

SIZES = (64, 96, 112, 128, 160, 192, 224, 256, 299)
PATIENCE = 30.0  # seconds for finding a size that works


def try_backbone(name: str, shape: tuple[int, int, int], *, pretrained: bool = False, drop_rate: float = 0.0) -> None:
    """Put two images of `shape` (C, H, W) through a network in training mode, forward and backward.

    Networks that halve their map too often, cut it into windows, or were made for one size only fail in ways that only
    their authors understand; here the answer is a size that works.

    Raises
    ------
    SpecError
        The network can't take such images; the message names the smallest usual size that it takes.
    UnknownNameError, WeightsError
        As :func:`build_trunk`.
    """
    try:
        _pass(name, shape, pretrained, drop_rate)
    except (UnknownNameError, WeightsError):
        raise
    except Exception as error:
        size = _size_that_works(name, shape[0], drop_rate)
        raise SpecError(
            f"backbone '{name}' can't take images of {shape[1]}x{shape[2]} pixels",
            where=_first_line(error),
            hint=f"images of {size}x{size} go through it" if size else "no usual image size goes through it",
            next=f"the same command with --set image_size={size}" if size else "fer-bench list backbones",
        ) from error


def _pass(name: str, shape: tuple[int, int, int], pretrained: bool, drop_rate: float) -> None:
    channels, height, _ = shape
    trunk = build_trunk(name, in_chans=channels, image_size=height, pretrained=pretrained, drop_rate=drop_rate)
    _, features = trunk.train()(torch.randn(2, *shape))
    if features.shape != (2, trunk.num_features):
        raise ValueError(f"its features are {tuple(features.shape)}, where {(2, trunk.num_features)} were expected")
    features.sum().backward()


def _size_that_works(name: str, channels: int, drop_rate: float) -> int | None:
    """The smallest usual size that goes through the network, if one is found in reasonable time."""
    end = time.monotonic() + PATIENCE
    config = timm.get_pretrained_cfg(name)
    for size in sorted({*SIZES, *((config.input_size[-1],) if config else ())}):  # its own, which may be like no other
        if time.monotonic() > end:
            break
        try:
            _pass(name, (channels, size, size), False, drop_rate)
        except Exception:  # what a network that is too small for its images raises is anybody's guess
            continue
        return size
    return None
