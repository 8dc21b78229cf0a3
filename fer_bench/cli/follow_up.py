"""Follow-up commands that a command prints, with the options that were given to it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from fer_bench.base.addresses import absolute
from fer_bench.base.credentials import holds_secret
from fer_bench.record.home import Home

PATHS = ("plugin_dirs", "source", "out")  # options printed as absolute paths, to work in any folder
ADDRESS_LEFT_OUT = "the tracking server's address contains a password: set it in MLFLOW_TRACKING_URI first"


def follow_up(name: str, target: click.Command, *words: str, leave: Collection[str] = ()) -> str:
    """The command ``fer-bench NAME WORDS...``, with every option of the running command that `target` also takes.

    Parameters
    ----------
    name : str
        The command's name, as typed.
    target : click.Command
        The command itself.
    words : str
        Its arguments, and options of its own.
    leave : collection of str
        Names of parameters not to repeat, because `words` replace them.
    """
    return shlex.join(["fer-bench", *name.split(), *words, *carried_options(target, leave=leave)])


def command_named(name: str) -> click.Command:
    """The command that ``fer-bench NAME`` runs."""
    from fer_bench.cli import cli

    command = cli.get_command(click.get_current_context(), name)
    if command is None:
        raise LookupError(name)
    return command


def carried_options(target: click.Command, *, leave: Collection[str] = ()) -> list[str]:
    """Words for the options given to the running command that `target` also takes; always includes the home.

    An address with credentials is left out; see :func:`address_left_out`.
    """
    context = click.get_current_context()
    known = {p.name for p in target.params if isinstance(p, click.Option)} - set(leave)
    words: list[str] = []
    for option in context.command.params:
        if not isinstance(option, click.Option) or option.name not in known or option.name == "home":
            continue
        if context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            words += _spelled(option, context.params[option.name])
    if "home" in known:
        words += ["--home", str(Home.find(context.params.get("home")).root)]
    return words


def address_left_out() -> bool:
    """Whether the running command was given an address that must not be printed."""
    context = click.get_current_context()
    given = context.get_parameter_source("tracking_uri") is ParameterSource.COMMANDLINE
    return given and holds_secret(context.params["tracking_uri"])


def _spelled(option: click.Option, value: Any) -> list[str]:
    if option.is_flag:
        name = option.opts[0] if value else next(iter(option.secondary_opts), None)
        return [name] if name else []
    name = max(option.opts, key=len)
    values = value if option.multiple else [value]
    if option.name == "tracking_uri":
        values = [absolute(v) for v in values if not holds_secret(v)]
    if option.name in PATHS:
        values = [os.path.abspath(v) for v in values]
    return [word for v in values for word in (name, str(v))]
