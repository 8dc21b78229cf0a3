"""Every built-in plug-in keeps what it asks of others."""

from __future__ import annotations

import pytest

import fer_bench
from fer_bench.contract.plugins import plugins

METHODS = sorted(name for name, plugin in plugins().methods.items() if plugin.origin == "built in")


@pytest.mark.parametrize("name", METHODS)
def test_the_method_keeps_every_promise(name: str):
    fer_bench.conforms(name)
