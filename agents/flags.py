"""The agent's options as flags of the command `celery worker`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import click

from agents.option_table import entries
from agents.options import unknown

#: Exit code of a wrong configuration.
EXIT_USAGE: Final = 2
#: Flags of Celery's worker that mean the same for an agent.
CELERYS_OWN: Final = ("concurrency",)


class Flag(click.Option):
    """A flag of the agent's; what nobody knows is refused in one line, without Click's usage."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Keep words that look like flags among those left over."""
        super().add_to_parser(parser, ctx)
        parser.ignore_unknown_options = True

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Look whether such a word is left over."""
        wrong = next((word for word in args if word.startswith("-")), None)
        if wrong is not None and not ctx.resilient_parsing:
            name = wrong.partition("=")[0]
            known = [key.lstrip("-") for one in ctx.command.params for key in one.opts]
            refuse(str(unknown(name.lstrip("-"), name, "flag", known)), EXIT_USAGE)
        return super().handle_parse_result(ctx, opts, args)


def add_flags(add: Callable[[Any], None]) -> None:
    """Give the command `celery worker` the agent's flags, but for those it has itself."""
    for entry in entries().values():
        several = entry.row.kind in ("list", "map")
        is_flag = entry.row.kind == "flag"
        names = [f"--{key}" for key in entry.keys if key not in CELERYS_OWN]
        if not names:
            continue
        if is_flag:
            names = [f"{name}/--no-{name[2:]}" for name in names]
        add(
            Flag(
                [*names, entry.field],
                help=entry.row.help,
                default=None,
                multiple=several,
                is_flag=is_flag,
                type=bool if is_flag else str,
            )
        )


def take(kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """Take the agent's flags out of what the worker was called with."""
    given: dict[str, Any] = {}
    for entry in entries().values():
        value = (
            kwargs.get(entry.field) if entry.key in CELERYS_OWN else kwargs.pop(entry.field, None)
        )
        if value is None or value == ():
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        given[entry.key] = list(value) if isinstance(value, tuple) else str(value)
    return given


def refuse(sentence: str, code: int) -> NoReturn:
    """End with one line to a person, before there is a log."""
    print(f"agent: {sentence}", file=sys.stderr)  # noqa: T201 - see above
    sys.exit(code)
