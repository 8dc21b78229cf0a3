"""``fer-bench launch``: many runs at once on the nodes of a cluster."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_bench.cli.group import Group
from fer_bench.cli.options import check_new, number_option, replace_option
from fer_bench.cli.preflight import OF_RAY
from fer_bench.errors import SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARED = ("run", "ablate")  # commands whose runs several processes can share


@click.group("launch", cls=Group)
def launch() -> None:
    """Carry out a study on the nodes of a cluster. For several runs on one machine, see `fer-bench run --jobs N`."""


@launch.command("slurm")
@number_option("--jobs", int, 1, 1000, "Tasks of the job array, which share the runs of the study.", default=4)
@click.option("--partition", metavar="NAME", help="Partition to submit to.")
@click.option("--time", metavar="LIMIT", help="Time limit of each task, such as 4:00:00.")
@click.option("--sbatch", "directives", multiple=True, metavar="NAME=VALUE",
              help="Another option of sbatch, such as gres=gpu:1 or cpus-per-task=4; repeatable.")  # fmt: skip
@click.option("--output", metavar="FILE", default="study.sbatch", show_default=True, help="Script to write.")
@replace_option
@click.argument("command", nargs=-1, required=True, metavar="-- run METHOD... --dataset NAME [OPTIONS]")
def slurm(
    jobs: int,
    partition: str | None,
    time: str | None,
    directives: tuple[str, ...],
    output: str,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Write a job script that carries out one `run` or `ablate` command with several tasks of a Slurm array.

    The nodes need a shared file system whose locks hold across nodes (docs/many-runs.md). Prepare the data first.
    """
    from fer_bench.base.files import write_text
    from fer_bench.launch.slurm import script

    words, home = _checked(command)
    check_new(output, force=force, option="--output")
    short = [f"{name}={value}" for name, value in (("partition", partition), ("time", time)) if value is not None]
    path = Path(output).absolute()
    program = [sys.executable, "-P", "-m", "fer_bench", *words]
    write_text(path, script(program, Path.cwd(), jobs, [*short, *directives], name=f"fer-bench-{command[0]}"))
    click.echo(f"{path}: {jobs} tasks that share the runs; the last to end writes the report")
    click.echo(f"submit it with: {shlex.join(['sbatch', str(path)])}")
    if "--no-track" in words:
        click.echo(f"afterwards, for MLflow: {shlex.join(['fer-bench', 'track', 'sync', '--all', '--home', home])}")


def _checked(command: Sequence[str]) -> tuple[list[str], str]:
    """The command as every task calls it, and its home. Names are checked now, not when the job starts."""
    from fer_bench.base.addresses import is_server
    from fer_bench.base.credentials import holds_secret
    from fer_bench.cli.follow_up import ADDRESS_LEFT_OUT, command_named
    from fer_bench.cli.preflight import preflight
    from fer_bench.record.home import Home

    _refuse_nesting(command)
    if command[0] not in SHARED:
        raise unknown("command", command[0], SHARED, where="after --")
    target = command_named(command[0])
    with target.make_context(command[0], list(command[1:]), parent=click.get_current_context()) as context:
        options = context.params
        preflight(_methods(command[0], options), options)
    home = Home.find(options["home"])
    words = [*command, *([] if options["no_wait"] else ["--no-wait"])]
    words += [] if options["home"] else ["--home", str(home.root)]
    uri = options["tracking_uri"] or home.tracking_uri
    if options["tracking_uri"] and holds_secret(uri):
        raise SpecError(ADDRESS_LEFT_OUT, where="--tracking-uri", hint="a script can be read by others")
    if not options["no_track"] and not is_server(uri):
        words.append("--no-track")  # a database file is not for several nodes
    return words, str(home.root)


def _refuse_nesting(command: Sequence[str]) -> None:
    """Raise SpecError where the tasks of the array would themselves hand their runs to a cluster."""
    inner = list(command)
    if inner[:2] == ["launch", "slurm"]:
        if "--" in inner:
            inner = inner[inner.index("--") + 1 :]
        raise SpecError(
            "each task would only write another job script, and train nothing",
            where="-- launch slurm",
            hint="the command after -- is the one that trains",
            next=_slurm_command(inner) if inner[:1] and inner[0] in SHARED else "fer-bench launch slurm --help",
        )
    if _value_of(inner, "--executor") == "ray":
        raise SpecError(
            "each task of the array would drive the Ray cluster with the whole study, or start one of its own",
            where="-- ... --executor ray",
            hint="the tasks share the runs by themselves; to use a Ray cluster instead, call the command after -- "
            "once, on one of its nodes",
            next=_slurm_command(_without(inner, ("--executor", *(f"--{n.replace('_', '-')}" for n in OF_RAY)))),
        )


def _value_of(words: Sequence[str], option: str) -> str | None:
    """The value that is given to an option, as ``--option VALUE`` or ``--option=VALUE``; the last one counts."""
    given = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            given = value if equals else following
    return given


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words without some options and their values."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in options:
            next(rest, None)
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept


def _slurm_command(inner: Sequence[str]) -> str:
    """The running command with other words after ``--``; passwords in them are hidden."""
    from fer_bench.base.credentials import words
    from fer_bench.cli.follow_up import carried_options

    return shlex.join(["fer-bench", "launch", "slurm", *carried_options(slurm), "--", *words(inner)])


def _methods(name: str, options: dict[str, Any]) -> list[str]:
    """The methods of a command as they would be typed after `run`."""
    from fer_bench.contract.plugins import plugins
    from fer_bench.runs.ablation import chosen_ablation

    if name == "run":
        return list(options["methods"])
    ablation = chosen_ablation(plugins(options["plugin_dirs"]), options["method"], options["arms"])
    return [arm.variant for arm in ablation.arms.values()]
