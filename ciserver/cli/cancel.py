"""`ci cancel`: stop a build."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli.terminal import Terminal
from pipeline import states

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def cancel(build: Annotated[str, typer.Argument(help="such as octocat/hello#7")]) -> None:
    """Stop a build; what has not started is skipped."""
    from ciserver.cli.client import Client, access
    from ciserver.cli.subject import build_number

    client = Client(access())
    slug, number = build_number(client, build)
    status = client.build(slug, number)["status"]
    if status in states.DONE:
        Terminal().line(f"{slug}#{number} has ended already: {status}")
        return
    client.cancel(slug, number)
    Terminal().line(f"{slug}#{number} is cancelled")
