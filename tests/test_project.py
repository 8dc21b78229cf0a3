"""What several files of the project repeat agrees: versions, floors, and the tests that are slow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import fer_bench

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())


def pins(file: str) -> dict[str, str]:
    """The versions that a file of constraints names, by library."""
    lines = (line.split("==") for line in (ROOT / file).read_text().splitlines() if "==" in line)
    return {name.lower(): version for name, version in lines}


def floors(*groups: list[str]) -> dict[str, str]:
    """The smallest version of every library that is required."""
    required = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for group in groups for line in group]
    return {match[1].lower(): match[2] for match in required if match}


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fer_bench.__version__


def test_the_oldest_versions_are_the_floors():
    extras = PROJECT["optional-dependencies"]
    required = floors(PROJECT["dependencies"], extras["fetch"], extras["hdf5"], extras["ray"])
    pinned = pins("constraints-oldest.txt")
    assert len(required) > 15
    assert {name: pinned[name][: len(floor)] for name, floor in required.items()} == required


def test_the_pinned_versions_satisfy_the_floors():
    def number(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    pinned = pins("constraints.txt")
    required = floors(PROJECT["dependencies"])
    assert [name for name, floor in required.items() if number(pinned[name]) < number(floor)] == []


def test_every_python_that_is_said_to_be_supported_is_tested():
    supported = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert {entry["python"] for entry in WORKFLOW["jobs"]["linux"]["strategy"]["matrix"]["include"]} == supported
    assert min(supported, key=lambda v: int(v.split(".")[1])) == PROJECT["requires-python"].removeprefix(">=")


def test_the_hooks_before_a_commit_run_the_ruff_of_the_tests():
    hooks = {
        repo["repo"]: repo["rev"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    }
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"] == "v" + pins("constraints.txt")["ruff"]


def test_tests_that_train_or_build_reports_are_slow_and_others_are_not(pytestconfig):
    kinds_of = next(
        plugin.kinds_of for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "kinds_of")
    )

    def helper():
        subprocess.run(["true"])  # noqa: F821

    def trains():
        with workplace():  # noqa: F821
            [execute(spec) for spec in ()]  # noqa: F821

    def types_a_command(call):
        main(["run", "rasn"])  # noqa: F821

    def reads_a_record(bench):
        """Neither run nor main here."""
        bench.write("run 17")

    assert kinds_of(trains) == {"training"}
    assert kinds_of(types_a_command) == {"training"}
    assert kinds_of(reads_a_record) == set()
    assert kinds_of(reads_a_record, helper) == {"process"}


def test_tests_of_the_real_files_are_slow(request):
    realdata = [i for i in request.session.items if i.get_closest_marker("realdata")]
    assert [i.nodeid for i in realdata if not i.get_closest_marker("slow")] == []
