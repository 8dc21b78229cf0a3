"""Costs of methods are read from the file beside them."""

from __future__ import annotations

import json

import pytest

from fer_bench.contract.costs import Cost, cost_of, how_measured
from fer_bench.contract.plugins import plugins
from fer_bench.errors import PluginError

FOUND = plugins()
OWN = "from fer_bench import Method, MethodCard\ncard = MethodCard(name='own', title='t')\n"


@pytest.fixture
def own(tmp_path):
    """The plug-in `own`, with a file of costs beside it if one is given."""

    def make(costs: str | None):
        (tmp_path / "own.py").write_text(OWN)
        if costs is not None:
            (tmp_path / "_costs.json").write_text(costs)
        return plugins([tmp_path]).methods["own"]

    return make


def test_a_cost_is_that_of_the_file_in_the_plugins_folder(own):
    plugin = own(json.dumps({"measured": "by hand", "costs": {"own": {"time": 2, "kept": 1.5}}}))
    assert cost_of(plugin) == Cost(time=2.0, kept=1.5)
    assert how_measured(plugin) == "by hand"


def test_a_method_without_a_cost_has_none(own):
    plugin = own(None)
    assert (cost_of(plugin), how_measured(plugin)) == (None, "")


@pytest.mark.parametrize("text", ["", "[]", '{"costs": {}}', '{"measured": "x", "costs": {"own": {"time": "long"}}}'])
def test_a_damaged_file_is_named(own, text):
    with pytest.raises(PluginError, match=r"costs of methods can't be read[\s\S]*_costs\.json"):
        cost_of(own(text))


def test_every_measured_method_exists_and_plain_cross_entropy_costs_what_it_costs():
    file = FOUND.methods["baseline_resnet"].tree.root / "_costs.json"
    costs = json.loads(file.read_text())["costs"]
    assert set(costs) <= set(FOUND.methods)
    plain = cost_of(FOUND.methods["baseline_resnet"])
    assert (plain.kept, plain.weights, plain.state) == (1.0, 1.0, 0)
    assert plain.time == pytest.approx(1.0, abs=0.15)
