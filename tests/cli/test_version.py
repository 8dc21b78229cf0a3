"""What ``fer-bench --version`` says: enough for a report of a bug."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import pytest

from fer_bench.cli import main


def printed_version(capfd: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    return capfd.readouterr().out.splitlines()


def test_the_version_names_what_a_bug_report_needs(capfd):
    import torch

    lines = printed_version(capfd)
    assert lines[0] == f"fer-bench {metadata.version('fer-bench')}"
    assert lines[1].startswith("Python {}.{}.{} ".format(*sys.version_info))
    assert f"torch {torch.__version__.split('+')[0]}" in [line.split("+")[0] for line in lines]
    assert lines[-1] == platform.platform()


def test_a_missing_library_is_named_as_missing(capfd, monkeypatch):
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "torch not installed" in printed_version(capfd)
