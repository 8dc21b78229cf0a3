"""Variants as they are typed, beside the labels of runs."""

from __future__ import annotations

import pytest

from fer_bench.base.variants import names_variant

PARAMS = {"attn.type": "none", "loss.tau": 1.0, "share.atoms": 16, "share.detach": True, "share.source": "batch_mean"}
LABEL = "rasn[attn.type=none,loss.tau=1.0,share.detach=True]"


@pytest.mark.parametrize(
    "text",
    [
        LABEL,
        "rasn[attn.type=none,loss.tau=1,share.detach=true]",
        "rasn[share.detach=True, loss.tau=1.00, attn.type=none]",
        "rasn[loss.tau=1e0,share.detach=true,attn.type=none,share.source=batch_mean,share.atoms=16]",  # defaults, too
    ],
)
def test_the_same_variant_in_other_spellings(text):
    assert names_variant(text, LABEL, PARAMS)


@pytest.mark.parametrize(
    "text",
    [
        "rasn",
        "arm[attn.type=none,loss.tau=1,share.detach=true]",
        "rasn[attn.type=none,loss.tau=1]",  # share.detach at its default is another variant
        "rasn[attn.type=none,loss.tau=2,share.detach=true]",
        "rasn[attn.type=none,loss.tau=true,share.detach=true]",
        "rasn[attn.type=none,loss.tau=1,share.detach=1]",
        "rasn[attn.type=none,loss.tau=1,share.detach=true,share.atoms=8]",
        "rasn[attn.type=none,loss.tau=1,share.detach=true,other=1]",
        "rasn[attn.type=none,loss.tau=1,share.detach=true",
        "rasn[attn.type=none,loss.tau=1,loss.tau=1,share.detach=true]",
        "rasn[attn.type,loss.tau=1,share.detach=true]",
    ],
)
def test_another_variant_or_none_at_all(text):
    assert not names_variant(text, LABEL, PARAMS)


def test_a_method_at_its_defaults_is_named_with_or_without_them():
    params = {"gamma": 2.0}
    assert names_variant("focal", "focal", params)
    assert names_variant("focal[gamma=2]", "focal", params)
    assert names_variant("focal[]", "focal", params)
    assert not names_variant("focal[gamma=3]", "focal", params)
