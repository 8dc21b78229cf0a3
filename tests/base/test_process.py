"""What a process of ours does before anything else, seen from outside: its bytes and its environment."""

import os
import subprocess
import sys

import pytest

from fer_bench.base.process import cores

WRITES = """
import os, sys, click
from fer_bench.base.process import settle
settle()
print({text}, flush=True)
click.echo({text})
print({text}, file=sys.stderr)
"""


def written(text, encoding, **environment):
    """Bytes of print, click.echo and the error stream, in a process whose terminal has an encoding."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG", "OMP_"))}
    kept |= {"PYTHONIOENCODING": encoding} if encoding else {}
    program = [sys.executable, "-c", WRITES.format(text=ascii(text))]
    done = subprocess.run(program, capture_output=True, env=kept | environment, check=True)
    printed, echoed = done.stdout.splitlines()
    return printed, echoed, *done.stderr.splitlines()


SENTENCE = "⚠ gain −1.5 ± 0.2 – 0.3, é, ≥ 2 seeds · angry → 愤怒"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", SENTENCE),
        ("latin-1", "! gain -1.5 ± 0.2 - 0.3, é, >= 2 seeds · angry > ??"),
        ("gbk", "! gain -1.5 ± 0.2 – 0.3, é, ≥ 2 seeds · angry → 愤怒"),
        ("ascii", "! gain -1.5 +-0.2 - 0.3, e, >= 2 seeds - angry > ??"),
    ],
)
def test_letters_that_a_terminal_lacks_are_written_plainly(encoding, expected):
    assert written(SENTENCE, encoding) == (expected.encode(encoding),) * 3


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_the_c_locale_is_a_terminal_like_any_other():
    assert written("±1 é ⚠", None, **C_LOCALE) == (b"+-1 e !",) * 3
    assert written("±1 é ⚠", None, LC_ALL="C") == ("±1 é ⚠".encode(),) * 3, "Python itself writes UTF-8 there"


def test_columns_stay_in_line_without_frames_of_lines():
    rows = ["│ a      │", "│ 1 ± 2  │", "│ ⚠ −3 … │", "└────────┘"]
    found = [written(row, "ascii")[0].decode() for row in rows]
    assert found == ["| a      |", "| 1 +-2  |", "| ! -3 . |", "+--------+"]


def test_a_name_that_is_no_unicode_is_written_in_any_terminal():
    assert written("f\udce9e", "utf-8") == (b"f?e", b"f?e", b"f\\udce9e"), "Python's error stream escapes by itself"
    assert written("f\udce9e", "ascii") == (b"f?e",) * 3


def test_what_the_user_has_chosen_for_missing_letters_stays():
    printed, _, _ = written("1 ± 2", "ascii:xmlcharrefreplace")
    assert printed == b"1 &#177; 2"


CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def waiting(program, **environment):
    """What a process sees of these variables after a program."""
    kept = {k: v for k, v in os.environ.items() if k not in CHOICES}
    command = [sys.executable, "-c", f"import os; {program}; print(*map(os.environ.get, {CHOICES}))"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=kept | environment).stdout.strip()


SETTLE = "from fer_bench.base.process import settle; settle()"


def test_threads_wait_passively_unless_the_user_has_chosen():
    for program in (SETTLE, "import fer_bench"):
        assert waiting(program) == "passive 1000 None"
        assert waiting(program, OMP_WAIT_POLICY="active") == "active None None"
        assert waiting(program, GOMP_SPINCOUNT="7") == "None 7 None"
        assert waiting(program, KMP_BLOCKTIME="1") == "None None 1"


def test_openmp_has_heard_of_it_when_torch_is_there():
    said = {"OMP_DISPLAY_ENV": "VERBOSE"}  # the runtime prints its settings when it is loaded
    kept = {k: v for k, v in os.environ.items() if k not in CHOICES}
    program = "import fer_bench; from fer_bench import Classifier"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=kept | said)
    if "OPENMP DISPLAY ENVIRONMENT" not in done.stderr:
        pytest.skip("torch here has an OpenMP that does not tell its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr


def test_cores_are_those_that_this_process_may_use():
    if sys.platform != "linux":
        assert cores() == os.cpu_count()
        return
    out = subprocess.run(
        ["taskset", "1", sys.executable, "-c", "from fer_bench.base.process import cores; print(cores())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout == "1\n"


def test_systems_that_do_not_restrict_a_process_give_all_cores(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cores() == 12
