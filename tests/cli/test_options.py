"""No value of any option ends in a traceback, and a slip is answered before anything heavy is imported."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.cli import cli, main, preflight
from fer_bench.cli.options import Number
from fer_bench.contract.arms import Arm
from fer_bench.contract.params import Choice, Float, Int, Param, parse_variant
from fer_bench.contract.plugins import plugins
from fer_bench.errors import FerBenchError, SpecError
from fer_bench.runs.spec import parse_folds
from fer_bench.training.recipe import Recipe

FOUND = plugins()
CARDS = [p.card for table in (FOUND.methods, FOUND.datasets) for p in table.values()]
PARAMS = {("recipe", n): p for n, p in Recipe.options().items()}
PARAMS |= {(c.name, n): p for c in CARDS for n, p in c.params.items()}
NUMBERS = {k: p for k, p in PARAMS.items() if p.choices is None and type(p.default) in (int, float)}


# -- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "name"), NUMBERS)
def test_every_number_has_a_range_that_holds_its_default_and_where_it_is_searched(owner, name):
    param = NUMBERS[owner, name]
    assert param.low is not None
    assert param.high is not None
    assert math.isfinite(param.low)
    assert math.isfinite(param.high)
    assert param.parse(param.default, name=name, owner=owner) == param.default
    match param.space:
        case Float(low=low, high=high) | Int(low=low, high=high):
            searched = [low, high]
        case Choice(options=options):
            searched = list(options)
        case _:
            searched = []
    for value in searched:
        param.parse(value, name=name, owner=owner)


SILLY = ["", " ", "-1", "-0", "nan", "inf", "-inf", "1e309", "1e300", "-1e300", "9" * 400, "9" * 5000, "0x10",
         "1_0", "None", "True", "[" * 9000, "(1,)", "'1'", "1j", "1e-320", "\x1b[31m", "٣", "../../x", "a" * 300,
         "="]  # fmt: skip


@pytest.mark.parametrize(("owner", "name"), PARAMS)
def test_silly_values_of_recipes_methods_and_data_sets_are_refused_or_become_what_they_should_be(owner, name):
    param, refused = PARAMS[owner, name], []
    for text in SILLY:
        try:
            value = param.parse(text, name=name, owner=owner)
        except SpecError as error:
            refused.append(str(error))
            continue
        assert type(value) is type(param.default) or param.choices is not None or (type(value) is float and param.words)
        if (owner, name) in NUMBERS:
            assert param.low <= value <= param.high or value in param.special
    assert all(name in output and "\x1b" not in output and len(output) < 700 for output in refused)


@given(
    low=st.integers(-1000, 1000),
    width=st.integers(0, 1000),
    value=st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=20)),
    real=st.booleans(),
)
def test_a_number_is_accepted_where_it_lies_in_its_range_and_nowhere_else(low, width, value, real):
    kind = float if real else int
    param = Param(kind(low), "of a test", low=low, high=low + width, special=(5000,))
    fits = not isinstance(value, (bool, str)) and (real or isinstance(value, int))
    fits = fits and (low <= value <= low + width or value == 5000)
    if isinstance(value, str):
        return
    if fits:
        assert param.parse(value, name="n", owner="o") == value
        assert param.parse(str(value), name="n", owner="o") == value
    else:
        with pytest.raises(SpecError):
            param.parse(value, name="n", owner="o")


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (Param(0, "h", low=16, high=1024, special=(0,)), "16 to 1,024, or 0"),
        (Param(0.5, "h", low=0.0, high=1.0), "0 to 1"),
        (Param(1, "h", low=1), "1 or more"),
        (Param(1.0, "h", high=2.5), "up to 2.5"),
        (Param("a", "h", choices=("a", "b", 1)), "a, b, 1"),
        (Param(True, "h"), "true or false"),
        (Param("", "h"), ""),
    ],
)
def test_ranges_are_told_as_people_write_them(param, message):
    assert param.accepts == message


def test_a_number_out_of_range_is_answered_with_the_range_and_the_default():
    with pytest.raises(SpecError, match=r"image_size=3 is out of range[\s\S]*16 to 1,024, or 0; the default is 0"):
        Recipe.build({}, {"image_size": "3"})
    for field, value in {"batch_size": "100000", "shift": "1e9", "warmup_epochs": "1e300", "lr": "1e9",
                         "weight_decay": "-1", "epochs": "-1"}.items():  # fmt: skip
        with pytest.raises(SpecError, match=rf"{field}={value} is out of range"):
            Recipe.build({}, {field: value})


# -- folds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0-99999999999", "99999999999999999999", "5", "0-5", "3-1", "0," + "9" * 5000])
def test_a_fold_that_does_not_exist_is_told_without_counting_up_to_it(text):
    with pytest.raises(SpecError, match=r"there is no fold [\s\S]*the protocol has folds 0 to 4"):
        parse_folds(text, 5)


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "1-", "a", "1.0", "1--2", "²", "٣", " ", "0x1", "\x1b"])
def test_what_is_no_fold_is_told(text):
    with pytest.raises(SpecError, match="neither a fold nor a range"):
        parse_folds(text, 5)


def test_folds_are_numbers_and_ranges():
    assert parse_folds(None, 3) == (0, 1, 2)
    assert parse_folds("0, 2-3,0003", 5) == (0, 2, 3)


@given(st.text(max_size=30))
def test_any_text_is_a_list_of_folds_or_an_error_of_ours(text):
    for parse in (lambda: parse_folds(text, 7), lambda: parse_variant(text)):
        try:
            parse()
        except FerBenchError:
            continue


# -- the command line ------------------------------------------------------------------------------------------------


def leaves(command: click.Command, path: tuple[str, ...] = ()):
    """(words, command) of every command that does something."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, (*path, name))
        return
    yield path, command


COMMANDS = {" ".join(path): command for path, command in leaves(cli)}
NUMERIC = [
    (words, option)
    for words, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and (option.metavar == "N" or isinstance(option.type, (Number, click.IntRange)))
]


def test_no_option_takes_a_number_of_any_size():
    loose = (click.types.IntParamType, click.types.FloatParamType)
    for words, command in COMMANDS.items():
        for option in command.params:
            bare = isinstance(option.type, loose) and not isinstance(option.type, click.IntRange)
            assert not bare, f"fer-bench {words} {option.opts[0]}"


@pytest.fixture
def found_once(monkeypatch):
    """Reading all cards takes longer than anything else here: they are read once. One of them gets arms."""
    focal = FOUND.methods["baseline_focal"]
    card = dataclasses.replace(focal.card, arms={"plain": Arm("baseline_resnet")})
    monkeypatch.setitem(FOUND.methods, card.name, dataclasses.replace(focal, card=card))

    def find(folders=()):
        return plugins(folders) if folders else FOUND

    monkeypatch.setattr("fer_bench.contract.plugins.plugins", find)
    monkeypatch.setattr("fer_bench.cli.preflight.plugins", find)


@pytest.fixture
def answer(capfd, tmp_path, monkeypatch, found_once):
    """``answer(*words)``: exit code and what was said; any error that is not ours fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER_BENCH_HOME", raising=False)

    def call(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        output = capfd.readouterr()
        return caught.value.code, output.out + output.err

    return call


NEEDED = {
    "run": ["baseline_resnet", "--dataset", "synthetic"],
    "ablate": ["baseline_focal", "--dataset", "synthetic"],
    "tune": ["baseline_resnet", "--dataset", "synthetic"],
    "data show": ["synthetic", "--out", "sheet.png"],
}
OUT_OF_RANGE = ["-2", "nan", "inf", "1e309", "99999999999999999999", "9" * 5000, "", "x", "1.5e", "\x1b[31m"]


@pytest.mark.parametrize(("words", "option"), NUMERIC, ids=lambda v: v.opts[0] if isinstance(v, click.Option) else v)
def test_numbers_of_the_command_line_have_a_range_and_are_refused_outside(answer, tmp_path, words, option):
    for value in OUT_OF_RANGE:
        code, output = answer(*words.split(), *NEEDED.get(words, []), option.opts[0], value)
        assert code in (1, 2), f"{option.opts[0]} {value[:20]}"
        assert option.opts[0].lstrip("-").split("-")[0] in output
        assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == []


TEXTS = ["", " ", "../../evil", "/", "a" * 300, "\x1b[31mred", "[", "]", "a[", "a[=]", "a[b]", "=", ":", ",", "-", "--",
         "folder:", "folder:../x", "%s", "*", "nul", "exp:0", "exp:nan", "step:1e400", "balanced:-1", "cuda:99999",
         "meta", "synthetic/", "ü", "last ", "natural,total=0", "9" * 5000]  # fmt: skip
WORDS = ["--dataset", "--dataset-set", "--protocol", "--imbalance", "--class-order", "--recipe", "--set", "--epochs",
         "--batch-size", "--precision", "--backbone", "--select", "--device", "--plugins", "--folds", "--reference",
         "--name"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("option", WORDS)
def test_no_text_given_to_an_option_of_a_training_ends_in_a_traceback_or_leaves_a_trace(
    tmp_path, monkeypatch, found_once, option
):
    """Every text is refused by the check that comes first; those that fit by chance pass it, and nothing is trained."""
    monkeypatch.chdir(tmp_path)
    refused = []
    for text in TEXTS:
        words = ["baseline_resnet", "--dataset", "synthetic", option, text]
        try:
            context = COMMANDS["run"].make_context("run", words)
            options = dict(context.params)
            preflight.preflight(options.pop("methods"), options)
        except (FerBenchError, click.ClickException) as error:
            refused.append(str(error))
    assert [output for output in refused if "\x1b" in output] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_given_as_an_argument_ends_in_a_traceback(answer, text):
    for words in (["run", text, "--dataset", "synthetic"], ["tune", text, "--dataset", "synthetic"], ["report", text],
                  ["compare", text], ["response", text], ["show", text], ["list", text], ["list", "backbones", text],
                  ["data", "stats", text], ["data", "prepare", text], ["data", "check", text], ["data", "fetch", text],
                  ["data", "show", text, "--out", "x.png"], ["track", "sync", text], ["claims", "--method", text],
                  ["claims", "--dataset", text], ["new", "method", text], ["new", "dataset", text],
                  ["new", "method", "own", "--template", text], ["list", "methods", text],
                  ["list", "methods", "--family", text], ["check", text]):  # fmt: skip
        code, output = answer(*words)
        assert code in (0, 1, 2), words
        assert "Traceback" not in output


# -- nothing heavy before the names are right ------------------------------------------------------------------------

SLIPS = [
    ["run", "baseline_resnt", "--dataset", "synthetic"],
    ["run", "baseline_resnet[pwer=1]", "--dataset", "synthetic"],
    ["run", "baseline_resnet", "--dataset", "synthetc"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--protocol", "oficial"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--recipe", "dem"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--set", "learning_rate=1"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--set", "lr=100"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--dataset-set", "sise=1"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--backbone", "resnet81"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--backbone", "resnet18.a1_in1"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--select", "recall"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--device", "gpu"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--imbalance", "expo:10"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--folds", "1"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--reference", "rasn"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--name", "../x"],
    ["run", "baseline_resnet", "--dataset", "synthetic", "--sedes", "1"],
    ["run", "baseline_resnet", "baseline_resnet", "--dataset", "synthetic"],
    ["tune", "baseline_resnt", "--dataset", "synthetic"],
    ["tune", "baseline_resnet", "--dataset", "synthetic", "--trials", "0"],
    ["data", "prepare", "synthetc"],
    ["data", "check", "synthetc"],
    ["data", "fetch", "synthetc"],
    ["data", "stats", "synthetc"],
    ["report", "no_such_study"],
    ["compare", "no_such_study"],
    ["response", "no_such_study"],
    ["show", "rsan"],
    ["list", "runz"],
]
ALLOWED = {"click", "fer_bench", "numpy"}


def test_a_slip_is_answered_before_torch_or_anything_else_heavy_is_imported(tmp_path):
    program = f"""
import contextlib, io, json, sys
from fer_bench.cli import main
from fer_bench.record.ledger import Ledger
Ledger("ledger").put_study("there", {{"name": "there", "runs": []}})
base, results = set(sys.modules), []
for words in {SLIPS!r}:
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    new = {{m.split(".")[0] for m in set(sys.modules) - base}} - sys.stdlib_module_names - {ALLOWED!r}
    results.append([code, sorted(new), output.getvalue()])
print(json.dumps(results))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    for words, (code, new, output) in zip(SLIPS, json.loads(done.stdout), strict=True):
        assert (code in (1, 2), new) == (True, []), (words, output)
