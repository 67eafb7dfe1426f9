"""`ci shell`: sit at the shell of a failed step that is kept for debugging."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import typer

from ciserver.cli.terminal import Refused

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def shell(
    build: Annotated[str, typer.Argument(metavar="[SLUG#]BUILD", help="such as octocat/hello#7")],
    stage: Annotated[
        str, typer.Argument(metavar="[STAGE]", help="name or number of a stage, if several wait")
    ] = "",
    step: Annotated[str, typer.Option(help="name or number of a step, if several wait")] = "",
    force: Annotated[bool, typer.Option("--force", help="instead of whoever uses it now")] = False,
) -> None:
    """Open the shell of a failed step of a build in debug, in this terminal.

    `exit` ends debugging and lets the build go on; Enter, `~`, `.` leaves the step as it is.
    Exit code: the shell's own; 0 when one has left; 2 where there is nothing to attach to.
    """
    from ciserver.cli.client import Client, access
    from ciserver.cli.shellview import View
    from ciserver.cli.subject import build_number

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("a shell needs a terminal: run `ci shell` in one")
    client = Client(access())
    slug, number = build_number(client, build)
    hold = chosen(client.holds(slug, number), f"{slug}#{number}", stage, step)
    where = f"{slug}#{number} {hold['stage_name']}/{hold['name']}"
    view = View(client.access, hold["id"], where, force=force)
    raise typer.Exit(asyncio.run(view.run()))


def chosen(holds: list[Any], build: str, stage: str, step: str) -> Any:
    """The kept step that is meant.

    Raises: Refused if there is none, or more than one.
    """
    if not holds:
        raise Refused(
            f"nothing of {build} waits for debugging: run `ci build --debug`, or restart a build "
            "in debug, and wait until a step has failed"
        )
    found = [
        hold
        for hold in holds
        if stage in ("", hold["stage_name"], str(hold["stage"]))
        and step in ("", hold["name"], str(hold["step"]))
    ]
    names = ", ".join(f"{hold['stage_name']}/{hold['name']}" for hold in holds)
    if not found:
        raise Refused(f"that does not wait for debugging; what does: {names}")
    if len(found) > 1:
        raise Refused(f"say which, as in `ci shell BUILD STAGE --step STEP`: {names}")
    return found[0]
