"""A job script for Slurm: several tasks, on any nodes, that carry out one study together.

Every task calls the same command. The locks of the ledger share the work, so nothing has to be divided beforehand: each
task takes the next run that no other has taken, and ends when none is left. A run of a task that was cut off is free
again, and the next task resumes it.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from fer_bench.errors import SpecError

DIRECTIVE = re.compile(r"[a-z][a-z-]*(=[^\s\"'\\]+)?")
OURS = ("array", "job-name")  # directives that the script has anyway


def script(command: Sequence[str], folder: Path, tasks: int, directives: Sequence[str], *, name: str) -> str:
    """The text of a job script.

    Parameters
    ----------
    command : sequence of str
        The words of the command that every task calls.
    folder : Path
        Where it is called.
    tasks : int
        Tasks of the job array.
    directives : sequence of str
        Options of sbatch, as ``partition=gpu``.
    name : str
        Name of the job.

    Raises
    ------
    SpecError
        A directive is malformed, or one that the script sets itself.
    """
    options = [f"job-name={name}", f"array=0-{tasks - 1}", *map(checked, directives)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{option}" for option in options),
        *textwrap.wrap(
            "The tasks carry out one study together: each takes runs that no other has taken, and the last to end "
            "writes the report. Submit the script again after a failure or a time limit: finished runs are kept, and "
            "others are resumed.",
            118, initial_indent="# ", subsequent_indent="# ",
        ),
        "set -eu",
        f"cd {shlex.quote(str(folder))}",
        'echo "task ${SLURM_ARRAY_TASK_ID:-0} on ${HOSTNAME:-this machine}"',
        f"exec {shlex.join(command)}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def checked(directive: str) -> str:
    """A directive without its dashes; raises SpecError where it is malformed or the script's own."""
    bare = directive.removeprefix("--")
    if not DIRECTIVE.fullmatch(bare):
        raise SpecError(
            f"'{directive}' is not an option of sbatch", where="--sbatch", hint="NAME=VALUE without blanks: gres=gpu:1"
        )
    if bare.partition("=")[0] in OURS:
        raise SpecError(f"'{directive}' is set by the script itself", where="--sbatch", hint="--jobs sets the array")
    return bare
