"""Command groups that answer an unknown command with the nearest one."""

from __future__ import annotations

import click

from fer_bench.errors import unknown


class Group(click.Group):
    """A click group; raises UnknownNameError with the nearest name for a command that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the name of a command."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise unknown("command", args[0], known, next=f"{ctx.command_path} --help")
        return super().resolve_command(ctx, args)
