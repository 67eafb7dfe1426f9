"""`ci`, the command for people. Each subcommand's module is imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

#: Name → module of this package that has a Typer `app` with this one command.
COMMANDS: Final = {
    "up": "up",
    "build": "build",
    "log": "log",
    "status": "status",
    "cancel": "cancel",
    "shell": "shell",
    "agents": "agents",
    "lint": "lint",
    "plan": "plan",
    "convert": "convert",
    "compile": "compile",
    "sign": "sign",
    "encrypt": "encrypt",
    "exec": "exec",
}


class Lazy(TyperGroup):
    """A group of commands that are imported when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ciserver.cli.{COMMANDS[cmd_name]}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=Lazy,
    name="ci",
    help="Build repositories on your own machines.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def ci() -> None:
    """Build repositories on your own machines."""


def main() -> None:
    """Run the command line. What a person has to mend is one sentence and exit code 2."""
    from ciserver.cli.terminal import Refused

    try:
        app()
    except Refused as refused:
        sys.stderr.write(f"ci: {refused}\n")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
