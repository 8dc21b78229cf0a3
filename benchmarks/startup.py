"""What the light commands cost: CPU time of a process, compared with an interpreter that imports the same parser.

Each command alternates with `python -c "import click"`, and minima are compared, so that other work on the machine
matters as little as possible. Tests assert what keeps the ratio low: these commands import nothing but the parser.

    python benchmarks/startup.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

BARE = ["-c", "import click"]
ENTRY = ["-c", "from fer_bench.cli import main; main()"]
COMMANDS = (["--help"], ["list", "methods"], ["list", "datasets"], ["show", "rasn"])


def cpu_seconds(*words: str) -> float:
    """User and system time of one Python process."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Time every command and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for words in COMMANDS:
        pairs = [(cpu_seconds(*BARE), cpu_seconds(*ENTRY, *words)) for _ in range(rounds)]
        bare, whole = (min(side) for side in zip(*pairs, strict=True))
        print(
            f"fer-bench {' '.join(words):16s} {whole:.3f} s of CPU, {whole / bare:.1f} times an interpreter with click"
        )


if __name__ == "__main__":
    main()
