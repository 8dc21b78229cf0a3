"""Methods of one's own, written from a card's fields and the text of their hooks."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

HEAD = """
import gc, inspect, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from fer_bench import *
from fer_bench import Choice, Float, LossOut, Method, MethodCard, Output, Param, Resampled, Stage, StreamSpec

card = MethodCard(name="bad", title="Bad", changes="breaks a promise"{card})

class Bad(Method):
    card = card
"""


@pytest.fixture
def write_method(tmp_path: Path):
    """``write_method(card, body)`` writes a plug-in called `bad` with more fields of its card, and its hooks."""

    def write(card: str, body: str) -> Path:
        path = tmp_path / "bad.py"
        path.write_text(HEAD.replace("{card}", card) + textwrap.indent(textwrap.dedent(body), "    ") + "\n    pass\n")
        return path

    return write
