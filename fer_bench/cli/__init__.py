"""The command line: one light entry; a sub-command's module is imported when it is called.

``fer-bench --help`` and ``fer-bench list`` import no torch and answer in a fraction of a second.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from fer_bench import __version__
from fer_bench.base.commands import complete
from fer_bench.base.credentials import hide
from fer_bench.base.process import settle
from fer_bench.cli.output import CLOSED, OutputClosed, watch_output
from fer_bench.errors import FerBenchError, unknown

# name -> (module, attribute, one line for --help: reading it must not import the module)
COMMANDS = {
    "run": ("fer_bench.cli.run", "run", "Train methods under one harness and compare them."),
    "tune": ("fer_bench.cli.tune", "tune", "Search each method's best configuration, with equal budgets."),
    "report": ("fer_bench.cli.report", "report", "Write a study's report from the ledger."),
    "response": ("fer_bench.cli.response", "response", "Draw recall against the imbalance of training."),
    "compare": ("fer_bench.cli.compare", "compare", "Rank the same methods over several data sets."),
    "claims": ("fer_bench.cli.claims", "claims", "Show published numbers, and how they were measured."),
    "list": (
        "fer_bench.cli.listing",
        "list_",
        "List methods, datasets, protocols, backbones, recipes, runs or studies.",
    ),
    "show": ("fer_bench.cli.listing", "show", "Show the card of a method or dataset."),
    "data": ("fer_bench.cli.data", "data", "Prepare, count and picture data sets."),
    "track": ("fer_bench.cli.track", "track", "Fill the MLflow mirror from the ledger."),
    "ui": ("fer_bench.cli.ui", "ui", "Start the MLflow UI on this project's store."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, and whose errors are told in four lines instead of a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a study's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command's name; an unknown one is answered with the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS, next="fer-bench --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the next command that an error names gets the home and the plug-ins of this one."""
        try:
            return super().invoke(ctx)
        except FerBenchError as error:
            home, plugins = ctx.meta.get("fer_bench.home"), ctx.meta.get("fer_bench.plugin_dirs", ())
            error.next = complete(error.next, home=home, plugins=plugins)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command list of --help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fer-bench")
def cli() -> None:
    """Benchmark methods for facial expression recognition, above all on the rare expressions.

    \b
    fer-bench run rasn baseline_focal --dataset synthetic --recipe brief
    fer-bench list methods
    fer-bench data prepare fer2013 --from PATH
    """


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 0, 1 for an expected error, 2 for wrong usage, 130 after Ctrl-C, 141 without a reader."""
    settle()
    watch_output()
    try:
        code = cli.main(args=argv, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except FerBenchError as error:
        _tell(error)
    except click.exceptions.Abort as error:
        _interrupted(error.__cause__)
    except KeyboardInterrupt as error:
        _interrupted(error)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        from fer_bench.record.home import refused

        if isinstance(error, OSError) and (told := refused(error)):
            _tell(told)
        click.echo(hide("".join(traceback.format_exception(error))), err=True, nl=False)  # our own bug
        sys.exit(1)


def _tell(error: FerBenchError) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(hide(error.render()), err=True)
    sys.exit(1)


def _interrupted(cause: BaseException | None) -> None:
    if isinstance(cause, OutputClosed):
        sys.exit(CLOSED)
    click.echo("Interrupted. Finished runs are saved. Rerun the command to resume.", err=True)
    sys.exit(130)
