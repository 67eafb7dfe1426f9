"""`ci status`: what the server is doing."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ciserver.cli.terminal import Terminal
from pipeline import states

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def status(
    repo: Annotated[str, typer.Argument(metavar="[SLUG]", help="one repository's builds")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show every repository with its newest build, or the newest builds of one."""
    from ciserver.cli.client import Client, access

    client = Client(access())
    terminal = Terminal()
    if as_json:
        terminal.line(json.dumps(client.builds(repo) if repo else client.repos()))
        return
    if repo:
        rows = [(repo, build) for build in client.builds(repo)]
    else:
        rows = [(found["slug"], found.get("build") or {}) for found in client.repos()]
    terminal.line(f"server {client.access.url}")
    for slug, build in rows:
        terminal.line(row(terminal, slug, build) + _waiting(client, slug, build))
    if not rows:
        terminal.line("no builds yet: build a repository with `ci build PATH`")


def _waiting(client: Any, slug: str, build: dict[str, Any]) -> str:
    """What of a build waits for debugging."""
    if not build.get("debug") or build["status"] != states.RUNNING:
        return ""
    holds = client.holds(slug, build["number"])
    names = ", ".join(f"{hold['stage_name']}/{hold['name']}" for hold in holds)
    return f"  {names} waits for debugging: ci shell {slug}#{build['number']}" if holds else ""


def row(terminal: Terminal, slug: str, build: dict[str, Any]) -> str:
    """A line about a repo's build."""
    from ciserver.cli.follow import COLOURS

    if not build:
        return f"{slug:<30} no builds"
    state = build["status"]
    shown = terminal.paint(f"{state:<9}", COLOURS.get(state, "0"))
    first_line = (build.get("message") or "").partition("\n")[0]
    name = f"{slug}#{build['number']}"
    return f"{name:<30} {shown} {build.get('event', ''):<12} {first_line}".rstrip()
