"""Names of the backbones, listed without importing timm or torch, so that a misspelt name is reported at once.

timm registers its models by decorated functions and by tables of deprecated names; both are read from its source.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import re
from functools import cache
from pathlib import Path

from fer_bench.errors import unknown

SMALL = ("resnet10_tiny", "resnet18_small", "resnet34_small")  # registered by fer_bench.contract.backbones
_MODEL = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_DEPRECATED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)


def _source() -> str:
    """The source of timm's models; empty where it can't be read."""
    spec = importlib.util.find_spec("timm")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = (f for folder in folders for f in sorted(Path(folder, "models").glob("*.py")))
    return "\n".join(f.read_text(encoding="utf-8") for f in files)


@cache
def _registered() -> tuple[frozenset[str], frozenset[str]]:
    """timm's models and its deprecated names."""
    source = _source()
    tables = _DEPRECATED.findall(source)
    deprecated = {n for table in tables for n in re.findall(r"^\s*['\"](\w+)['\"]:", table, re.MULTILINE)}
    return frozenset(_MODEL.findall(source)) - deprecated, frozenset(deprecated)


def _natural(name: str) -> list[int | str]:
    """resnet9 before resnet10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]


def backbone_names(pattern: str = "") -> list[str]:
    """Names of all backbones, small-input ones first; `pattern` may hold wildcards."""
    small = [n for n in SMALL if not pattern or fnmatch.fnmatch(n, pattern)]
    models = _registered()[0]
    return small + sorted(fnmatch.filter(models, pattern) if pattern else models, key=_natural)


def check_backbone(name: str) -> None:
    """Raise UnknownNameError with the nearest names unless there is a backbone `name`.

    A name may end in a dot and one of timm's tags, which name sets of weights; a tag that occurs nowhere in timm is
    refused here, one of another model when the network is built.
    """
    models, deprecated = _registered()
    model, dot, tag = name.partition(".")
    if models and model not in models | deprecated and model not in SMALL:
        raise unknown("backbone", name, backbone_names(), where="--backbone", next="fer-bench list backbones")
    if models and dot and not re.search(rf"[.'\"]{re.escape(tag)}['\"]", _source() if tag else ""):
        tags = set(re.findall(rf"['\"]{model}\.([\w.-]+)['\"]", _source()))
        raise unknown(f"tag of {model}", tag, tags, where=f"--backbone {name}", next=f"--backbone {model}")
