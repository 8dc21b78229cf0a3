"""``fer-bench claims``: what is shown of a number, on wide and narrow terminals, and how mistakes are answered."""

import csv
import io
import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fer_bench.cli.claims import claims as command
from fer_bench.errors import UnknownNameError


@pytest.fixture
def call():
    """``call(*words)`` runs the command; returns its result."""
    return lambda *words: CliRunner().invoke(command, words)


def test_the_command_shows_numbers_with_what_to_know_of_them(call):
    text = call("--dataset", "fer2013", "--method", "lethesec").stdout.splitlines()
    assert text[0] == "fer2013: published numbers, %"
    assert text[1].split() == ["method", "%", "metric", "measured", "on", "picked", "by", "flags", "tag", "source"]
    for word in ("LetheSec ResNet-18", "73.70", "accuracy", "PrivateTest", "the test", "read", "dataset.py"):
        assert word in text[2]
    assert text[-1] == "1 published number"


def test_the_command_shows_recalls_of_a_model_in_one_line(call):
    text = call("--dataset", "rafdb", "--method", "DLP-CNN").stdout.splitlines()
    at = text.index("rafdb: published recall of each class, %")
    assert text[at + 1].split()[:8] == ["method", "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"]
    numbers = ["81.2", "62.2", "52.2", "92.8", "80.1", "71.6", "80.3"]
    assert text[at + 2].split()[:10] == ["DLP-CNN", "+", "mSVM", *numbers]
    assert text[at + 1].split()[8:11] == ["measured", "on", "picked"]
    assert text[at + 2].split()[10] == "test"


def test_the_command_tells_apart_what_differs_in_its_classes(call):
    text = [
        line for line in call("--dataset", "affectnet", "--method", "POSTER++").stdout.splitlines() if "%" not in line
    ]
    (seven,) = (line for line in text if "67.49" in line)
    (eight,) = (line for line in text if "63.77" in line)
    assert "val, 7 classes" in seven
    assert "val, 8 classes" in eight


def test_the_command_explains_the_tags_and_flags_that_it_shows(call):
    text = call("--dataset", "fer2013", "--method", "ARM").stdout.splitlines()
    at = text.index("tags")
    assert text[at + 1] == "  read  read in code, README, figure or paper"
    assert text[at + 2 :] == [
        "",
        'flags ("theirs" is the published number)',
        "  transductive      theirs reads the test batch",
        "  protocol-unknown  protocol not stated",
        "",
        "1 published number",
    ]


@pytest.fixture
def terminal():
    """``terminal(columns, *words)`` runs the command on a terminal so wide; returns its lines without colours."""

    def lines(columns: int, *words: str) -> list[str]:
        env = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}
        text = CliRunner().invoke(command, words, env=env, color=True).stdout
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]

    return lines


def test_a_wide_terminal_has_a_column_for_everything(terminal):
    text = terminal(200, "--dataset", "fer2013")
    (line,) = (line for line in text if "Khaireddin & Chen VGG, cosine" in line)
    for word in ("73.28", "accuracy", "PublicTest", "validation", "swapped, trained-on-val", "read"):
        assert word in line
    assert max(map(len, text)) <= 200


def test_a_narrow_terminal_breaks_no_word_and_loses_no_flag(terminal):
    text = terminal(80, "--dataset", "fer2013", "--all")
    at = text.index(next(line for line in text if "Khaireddin & Chen VGG, cosine" in line))
    assert text[at].split()[0] == "73.28"
    following = " ".join(" ".join(text[at + 1 : at + 3]).split())
    assert following.startswith("metric accuracy; measured on PublicTest; picked by validation; flags swapped, trained")
    output = " ".join(text)
    assert "protocol-unknown" in output
    assert not re.search(r"protoc\b|accurac\b|recalle\b", output)
    assert max(map(len, text[: text.index("tags")])) <= 80


def test_recalls_on_a_narrow_terminal_have_their_origin_in_notes(terminal):
    text = terminal(80, "--dataset", "rafdb", "--method", "ARM v")
    assert text[text.index("rafdb: published recall of each class, %") + 2].split()[-2:] == ["neutral", "note"]
    rows = [line.split() for line in text if line.startswith(" ARM v") and len(line.split()) == 10]
    assert rows == [
        ["ARM", "v1", "87", "66", "58", "96", "87", "84", "98", "1"],
        ["ARM", "v2", "90", "85", "67", "96", "88", "80", "98", "1"],
        ["ARM", "v3", "90.3", "70.3", "64.4", "95.4", "83.9", "77.2", "97.9", "1"],
    ]
    notes = " ".join(" ".join(text).split())
    assert "1 measured on test; picked by the test; flags transductive; tag read; source SimKarras/" in notes


def test_the_command_hides_the_quarantine_and_says_so(call):
    hidden = call("--dataset", "fer2013").stdout
    assert "ResEmoteNet" not in hidden
    assert hidden.splitlines()[-1] == "4 quarantined numbers hidden (see --all)"
    output = call("--dataset", "fer2013", "--all").stdout
    assert "hidden" not in output
    before, after = output.split("fer2013: quarantined, %")
    for name, number in (
        ("ResEmoteNet", "79.79"),
        ("SDAFE", "81.33"),
        ("EfficientFER", "82.47"),
        ("PAtt-Lite", "92.5"),
    ):
        assert name in after
        assert number in after
        assert name not in before


def test_a_method_whose_numbers_are_all_hidden_is_not_unknown(call):
    assert call("--method", "SDAFE").stdout.splitlines() == [
        "0 published numbers",
        "1 quarantined number hidden (see --all)",
    ]


def test_the_command_writes_csv_to_the_output_and_the_note_to_the_error_stream(call):
    text = call("--dataset", "rafdb", "--csv")
    rows = list(csv.DictReader(io.StringIO(text.stdout)))
    assert {r["dataset"] for r in rows} == {"rafdb"}
    assert "rafdb/mek-table5-resnet18-mek:recall:fear" in {r["id"] for r in rows}
    assert "quarantined" not in text.stdout
    assert text.stderr == "2 quarantined numbers hidden (see --all)\n"


def test_the_command_answers_an_unknown_data_set_with_the_nearest(call):
    error = call("--dataset", "afectnet").exception
    assert isinstance(error, UnknownNameError)
    assert "'affectnet'" in error.hint
    assert error.next == "fer-bench claims --dataset affectnet"


def test_a_data_set_without_numbers_is_answered_with_those_that_have_some(call):
    error = call("--dataset", "muxspace").exception
    assert "no published numbers for data set 'muxspace'" in error.what
    assert "affectnet, ckplus, expw, fer2013, ferplus, rafdb, sfew" in error.hint


@pytest.mark.parametrize(
    ("words", "hint", "following"),
    [
        (["--method", "rasnn"], "did you mean 'RASN'", "fer-bench claims --method RASN"),
        (["--dataset", "rafdb", "--method", "rasnn"], "'RASN'", "fer-bench claims --dataset rafdb --method RASN"),
        (
            ["--dataset", "ckplus", "--method", "arm"],
            "affectnet, fer2013, rafdb, sfew",
            "fer-bench claims --method arm",
        ),
        (["--method", "zzzz"], "any part of a method's name, in upper or lower case", "fer-bench claims"),
    ],
)
def test_an_unknown_method_is_answered_with_a_command_that_works(call, words, hint, following):
    error = call(*words).exception
    assert isinstance(error, UnknownNameError)
    assert hint in error.hint
    assert error.next == following
    assert call(*shlex.split(following)[2:]).exit_code == 0


def test_the_command_imports_nothing_heavy():
    program = """
import sys
from fer_bench.cli.claims import claims
claims([], standalone_mode=False)
print([m for m in ("torch", "timm", "mlflow", "pandas", "scipy", "matplotlib") if m in sys.modules], file=sys.stderr)
"""
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert text.stderr.strip() == "[]"
    assert "FER2013" in text.stdout
