"""The command line: a light entry point; a command's module is imported when the command is called.

Each command has one file, named after it; ``data NAME`` is ``data_NAME.py`` where it needs more than a few lines, and
``listing.py`` has ``list``. ``fer-bench --help`` and ``fer-bench list`` import no torch and answer in a fraction of a
second.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from fer_bench.base.credentials import hide
from fer_bench.base.next_command import complete
from fer_bench.base.process import settle
from fer_bench.cli.group import Group
from fer_bench.cli.output import CLOSED, OutputClosed, watch_output
from fer_bench.errors import FerBenchError, VariantNameError

# name -> (module, attribute, one line for --help: reading it must not import the module)
COMMANDS = {
    "run": ("fer_bench.cli.run", "run", "Train methods under the same conditions and compare them."),
    "ablate": ("fer_bench.cli.ablate", "ablate", "Train the arms of a method: what each of its modules contributes."),
    "launch": ("fer_bench.cli.launch", "launch", "Carry out a study with many tasks of a cluster."),
    "tune": ("fer_bench.cli.tune", "tune", "Tune the hyperparameters of each method, with equal budgets."),
    "report": ("fer_bench.cli.report", "report", "Write a study's report from the ledger."),
    "response": ("fer_bench.cli.response", "response", "Plot recall against the imbalance of the training set."),
    "compare": ("fer_bench.cli.compare", "compare", "Rank the same methods across several data sets."),
    "relabel": ("fer_bench.cli.relabel", "relabel", "Score a study against another data set's labels as well."),
    "predict": ("fer_bench.cli.predict", "predict", "Predict faces of your own with the network of a finished run."),
    "explain": ("fer_bench.cli.explain", "explain", "Draw where a run's network looks, and what it draws on."),
    "claims": ("fer_bench.cli.claims", "claims", "List published numbers and how they were measured."),
    "list": (
        "fer_bench.cli.listing",
        "list_",
        "List methods, data sets, protocols, backbones, recipes, runs or studies.",
    ),
    "show": ("fer_bench.cli.show", "show", "Show the card of a method or data set."),
    "new": ("fer_bench.cli.new", "new", "Write a method or data set to start from, with its tests."),
    "check": ("fer_bench.cli.check", "check", "Check that a method or data set keeps what every plug-in must."),
    "data": ("fer_bench.cli.data", "data", "Download, prepare, check and inspect data sets."),
    "track": ("fer_bench.cli.track", "track", "Update the MLflow mirror from the ledger."),
    "ui": ("fer_bench.cli.ui", "ui", "Open the MLflow UI for this project."),
}


class LazyGroup(Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a study uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(import_module(module), attribute)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed: some errors repeat it with another name."""
        ctx.meta["fer_bench.typed"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; if an error suggests a next command, add this command's home and plug-ins to it."""
        try:
            return super().invoke(ctx)
        except VariantNameError as error:
            from fer_bench.cli.variant_names import typed_again

            error.next = typed_again(ctx.meta["fer_bench.typed"], error.variants)
            raise
        except FerBenchError as error:
            home, plugins = ctx.meta.get("fer_bench.home"), ctx.meta.get("fer_bench.plugin_dirs", ())
            error.next = complete(error.next, home=home, plugins=plugins)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list of --help without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from fer_bench.cli.version import describe

        click.echo(describe())
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the versions that a report of a bug needs.",
)
def cli() -> None:
    """Benchmark facial expression recognition methods, with a focus on rare expressions.

    \b
    fer-bench run rasn baseline_focal --dataset synthetic --recipe brief
    fer-bench list methods
    fer-bench data prepare fer2013 --from PATH
    """


def main(argv: list[str] | None = None) -> None:
    """Entry point; exit codes: 0, 1 expected error, 2 wrong usage, 130 after Ctrl-C, 141 closed output pipe."""
    settle()
    watch_output()
    try:
        code = cli.main(args=argv, prog_name="fer-bench", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except FerBenchError as error:
        _exit_with(error)
    except click.exceptions.Abort as error:
        _interrupted(error.__cause__)
    except KeyboardInterrupt as error:
        _interrupted(error)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        from fer_bench.record.home import refused

        if isinstance(error, OSError) and (refusal := refused(error)):
            _exit_with(refusal)
        click.echo(hide("".join(traceback.format_exception(error))), err=True, nl=False)  # our own bug
        sys.exit(1)


def _exit_with(error: FerBenchError) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(hide(error.render()), err=True)
    sys.exit(1)


def _interrupted(cause: BaseException | None) -> None:
    if isinstance(cause, OutputClosed):
        sys.exit(CLOSED)
    click.echo("Interrupted. Finished runs are saved. Rerun the command to resume.", err=True)
    sys.exit(130)
