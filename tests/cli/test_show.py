"""`fer-bench show` and `fer-bench list methods`: cards, families, and names under which variants are known."""

from __future__ import annotations

import json
import shlex

import pytest

from fer_bench.cli.preflight import preflight
from fer_bench.cli.variant_names import typed_again
from fer_bench.contract.plugins import plugins
from fer_bench.runs.ablation import chosen_ablation

FOUND = plugins()
CARD = """
from fer_bench import Choice, Float, Method, MethodCard, Param

card = MethodCard(
    name="shifted",
    title="Shifted softmax",
    paper="Doe, On shifts, 2020",
    url="https://example.org/shifts",
    family="logit adjustment",
    changes="loss -log softmax(z + τ log π)",
    deviations=("π is counted on the training fold",),
    params={
        "tau": Param(0.5, "strength τ; table 3 of the paper", low=0.0, high=2.0, space=Float(0.25, 1.5)),
        "mode": Param("train", "when it is applied", choices=("train", "test"), space=Choice(("train", "test"))),
    },
    needs=("votes",),
    also_known={"level_softmax": "tau=1", "late_softmax": "tau=1,mode=test"},
)


class Shifted(Method):
    card = card
"""


@pytest.fixture
def shifted(tmp_path):
    """A folder with the method `shifted`, which has two variants with names of their own."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "shifted.py").write_text(CARD)
    return folder


def test_show_prints_source_change_parameters_spaces_and_deviations(call, shifted):
    code, out, _ = call("show", "shifted", "--plugins", shifted)
    assert code == 0
    for text in (
        "shifted: Shifted softmax",
        "Doe, On shifts, 2020",
        "https://example.org/shifts",
        "logit adjustment: class priors",
        "loss -log softmax(z + τ log π)",
        "π is counted on the training fold",
        "tau = 0.5  (0 to 2)  tuned over 0.25 to 1.5",
        "strength τ; table 3 of the paper",
        "mode = train  (one of train, test)  tuned over train, test",
        "needs      votes: training images with soft labels",
        "level_softmax is shifted[tau=1]",
        "not measured",
    ):
        assert text in out


def test_show_prints_a_cost_that_was_measured(call, shifted):
    costs = {"measured": "on a ruler", "costs": {"shifted": {"time": 1.5, "kept": 2}}}
    (shifted / "_costs.json").write_text(json.dumps(costs))
    out = call("show", "shifted", "--plugins", shifted)[1]
    words = "1.5 x the training time, 2.00 x the memory that a step keeps, 1.00 x the weights of plain cross-entropy"
    assert f"{words}; on a ruler" in " ".join(out.split())


def test_the_commands_that_show_prints_are_right(call, shifted):
    out = call("show", "shifted", "--plugins", shifted)[1]
    commands = [line.partition("fer-bench ")[2] for line in out.splitlines() if line.startswith("to ")]
    assert [c.split()[0] for c in commands] == ["run", "run", "tune", "check"]
    assert commands[1].startswith("run 'shifted[tau=0.25]' shifted ")
    for command in commands:
        assert_can_be_typed(command)


@pytest.mark.parametrize("name", sorted(FOUND.methods))
def test_the_commands_shown_for_every_method_are_right(call, name):
    out = call("show", name)[1]
    commands = [line.partition("fer-bench ")[2] for line in out.splitlines() if line.startswith("to ")]
    assert commands
    for command in commands:
        assert_can_be_typed(command)


def assert_can_be_typed(command: str) -> None:
    """The check that comes before a training accepts the command."""
    from fer_bench.cli import cli

    name, *words = shlex.split(command)
    if name == "check":
        given = cli.get_command(None, name).make_context(name, words).params
        assert given["what"] in plugins(given["plugin_dirs"]).methods
        return
    options = dict(cli.get_command(None, name).make_context(name, words).params)
    if name == "ablate":
        assert chosen_ablation(FOUND, options["method"], options["arms"]).arms
        return
    methods = options.pop("methods")
    if name == "tune":
        options |= {"seeds": 1, "subsets": 1, "folds": None, "reference": None, "tuned": False}
    preflight(methods, options, searching=name == "tune")


def test_long_lines_are_folded_and_commands_are_not(call, shifted, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("show", "rasn")[1].splitlines()
    assert max(len(line) for line in lines if line.startswith("deviation  ")) <= 60
    assert any(line.startswith("to run ") and len(line) > 60 for line in lines)


def test_the_list_is_narrowed_by_family_and_pattern(call, shifted):
    def names(*words):
        lines = call("list", "methods", *words, "--plugins", shifted)[1].splitlines()
        return [line.split()[0] for line in lines]

    adjusting = ["logit_adjust_posthoc", "shifted", "level_softmax", "late_softmax"]
    assert set(adjusting) <= set(names("--family", "logit adjustment"))
    assert names("shifted soft") == adjusting[1:]
    assert names("LEVEL") == adjusting[1:]
    assert names("baseline_f*") == ["baseline_focal"]
    assert names("baseline", "--family", "loss") == ["baseline_focal"]
    assert names("baseline", "--family", "mixing") == ["no"]


def test_a_misspelt_family_is_answered_with_the_nearest(call):
    code, _, err = call("list", "methods", "--family", "reweigting")
    assert code == 1
    assert "unknown family 'reweigting'" in err
    assert "'reweighting'" in err
    assert call("list", "datasets", "--family", "loss")[0] == 2


# -- names of variants -----------------------------------------------------------------------------------------------


def next_of(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("  next:")]
    return line.removeprefix("  next:").strip()


def test_running_a_variants_name_is_answered_with_the_command_that_runs_it(on_tiny, call, shifted, tmp_path):
    words = ("late_softmax", "level_softmax[mode=test,tau=2]", "--name", "late_softmax", "--plugins", shifted)
    code, _, err = on_tiny("run", *words)
    assert code == 1
    assert "'late_softmax' is shifted[tau=1,mode=test]" in err
    again = shlex.split(next_of(err))
    assert again[:6] == ["fer-bench", "run", "shifted[tau=1,mode=test]", "shifted[mode=test,tau=2]", "--name", words[0]]
    code, out, err = call(*again[1:], "--threads", "1", "--quiet")
    assert code == 0, err
    assert "shifted[mode=test,tau=1.0]" in out


def test_other_commands_are_told_the_methods_name(call, shifted):
    code, _, err = call("show", "level_softmax", "--plugins", shifted)
    assert code == 1
    assert "'level_softmax' is shifted[tau=1]" in err
    code, out, _ = call(*shlex.split(next_of(err))[1:])
    assert (code, out.splitlines()[0]) == (0, "shifted: Shifted softmax")
    code, _, err = call("tune", "level_softmax", "--dataset", "synthetic", "--plugins", shifted)
    assert next_of(err) == f"fer-bench tune 'shifted[tau=1]' --dataset synthetic --plugins {shifted}"


def test_a_misspelt_variants_name_is_answered_with_the_nearest(call, shifted):
    assert "'level_softmax'" in call("show", "levl_softmax", "--plugins", shifted)[2]
    assert "'level_softmax'" in call("run", "levl_softmax", "--dataset", "synthetic", "--plugins", shifted)[2]


def test_the_command_is_repeated_with_what_was_meant():
    variants = {"a": ("long", "x=1"), "b": ("long", "")}
    assert typed_again(["run", "b", "a", "--reference", "a"], variants) == (
        "fer-bench run long 'long[x=1]' --reference 'long[x=1]'"
    )
    assert typed_again(["run", "a[x=2]", "a[y=3]", "b[y=3]"], variants) == (
        "fer-bench run 'long[x=2]' 'long[x=1,y=3]' 'long[y=3]'"
    )
    assert typed_again(["show", "a", "--plugins", "c"], variants) == "fer-bench show long --plugins c"


def test_every_built_in_name_of_a_variant_is_one_and_hides_nothing():
    taken = [*FOUND.methods, *FOUND.datasets]
    for plugin in FOUND.methods.values():
        for name, params in plugin.card.also_known.items():
            assert name not in taken, f"{name} is a plug-in"
            taken.append(name)
            assert FOUND.variants()[name] == (plugin.card.name, params)
