"""Runs by the name of their method, as it may be typed."""

from __future__ import annotations

import pytest

from fer_bench.errors import SpecError, UnknownNameError
from fer_bench.record.ledger import Ledger
from fer_bench.record.lookup import find_run


@pytest.fixture
def ledger(tmp_path):
    """Two runs of one method: one as it comes, and one that shifts its losses."""
    ledger = Ledger(tmp_path / "ledger")
    for k, (label, tau) in enumerate([("rasn", 0.0), ("rasn[loss.tau=1.0]", 1.0)]):
        writer = ledger.writer(f"{k}" * 16)
        writer.start()
        spec = {"method": "rasn", "params": {"loss.tau": tau, "share.source": "ema"}, "dataset": "toy"}
        writer.put(
            "spec", {"label": label, "spec": spec | {"protocol": "p", "fold": 0, "seed": 0, "profile": "natural"}}
        )
        writer.finish()
    return ledger


@pytest.mark.parametrize("text", ["rasn[loss.tau=1]", "rasn[loss.tau=1.0]", "rasn[share.source=ema,loss.tau=1]"])
def test_a_method_is_found_however_its_parameters_are_written(ledger, text):
    assert find_run(ledger, text).id == "1" * 16


def test_a_parameter_at_its_default_goes_without_saying(ledger):
    assert find_run(ledger, "rasn").id == find_run(ledger, "rasn[loss.tau=0]").id == "0" * 16
    with pytest.raises(UnknownNameError):
        find_run(ledger, "rasn[loss.tau=2]")


def test_the_next_command_for_several_runs_lists_them(ledger):
    writer = ledger.writer("2" * 16)
    writer.start()
    writer.put("spec", ledger.run("1" * 16).json("spec"))
    writer.finish()
    with pytest.raises(SpecError) as error:
        find_run(ledger, "rasn[loss.tau=1]")
    assert error.value.next == "fer-bench list runs --method 'rasn[loss.tau=1]'"
