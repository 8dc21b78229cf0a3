"""The command line called in this process."""

from __future__ import annotations

import pytest

from fer_bench.cli import main

SHORT = ["--recipe", "demo", "--epochs", "2", "--set", "batch_size=16", "--seeds", "1", "--device", "cpu", "--no-track"]


@pytest.fixture
def call(capfd):
    """``call(*words)`` runs the command line in this process; returns its exit code, output and errors."""

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(w) for w in words])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def on_tiny(call, plugin_folder, tmp_path):
    """``on_tiny("run", METHOD, ...)`` with the data set `tiny` and a home of its own."""

    def run(command, *words):
        where = ["--dataset", "tiny", "--plugins", plugin_folder, "--home", tmp_path]
        return call(command, *words, *where, *SHORT)

    return run
