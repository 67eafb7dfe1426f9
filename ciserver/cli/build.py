"""`ci build`: build a repository and follow it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from ciserver.cli.terminal import Refused, Terminal
from pipeline import states

SUCCESS, FAILED, NOT_RUN = 0, 1, 2

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def build(
    what: Annotated[str, typer.Argument(metavar="[PATH|URL|SLUG]", help="what to build")] = ".",
    branch: Annotated[str, typer.Option(help="the branch; default: the one checked out")] = "",
    commit: Annotated[str, typer.Option(help="the commit; default: the branch's newest")] = "",
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="a parameter of the build")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="keep failed steps for `ci shell`")
    ] = False,
    follow: Annotated[bool, typer.Option(help="show the log until the build ends")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print the build as JSON")] = False,
) -> None:
    """Build a repository's HEAD (default: the one here) and follow its log.

    Exit code: 0 success, 1 failed, 2 could not run.
    """
    from ciserver.cli.client import Client, access
    from ciserver.cli.subject import subject

    params = _params(param or [])
    target = subject(what)
    client = Client(access())
    terminal = Terminal()
    slug = target.slug or client.register(target.url)["slug"]
    if target.dirty and not as_json:
        terminal.line(f"{what}: changes that are not committed are not built")
    head = target.commit if not branch else ""
    made = client.create(slug, branch or target.branch, commit or head, params, debug=debug)
    if as_json:
        final = _await(client, Terminal(_nowhere()), slug, made["number"]) if follow else made
        terminal.line(json.dumps(final))
    else:
        terminal.line(f"{slug}#{made['number']} {client.access.url}/{slug}/{made['number']}")
        final = _await(client, terminal, slug, made["number"]) if follow else made
        if follow:
            terminal.line(verdict(terminal, final))
    raise typer.Exit(exit_code(final) if follow else SUCCESS)


def exit_code(build: dict[str, Any]) -> int:
    """What a finished build means to a script."""
    if build["status"] == states.SUCCESS:
        return SUCCESS
    begun = any(stage.get("started") for stage in build.get("stages") or [])
    return FAILED if begun or build["status"] != states.ERROR else NOT_RUN


def verdict(terminal: Terminal, build: dict[str, Any]) -> str:
    """The last line: status, error, duration."""
    from ciserver.cli.follow import COLOURS

    status = terminal.paint(build["status"], COLOURS.get(build["status"], "0"))
    seconds = max(0, (build.get("finished") or 0) - (build.get("started") or 0))
    after = f" after {seconds} s" if build.get("started") else ""
    why = f": {build['error']}" if build.get("error") else ""
    return f"build {build['number']}: {status}{after}{why}"


def _await(client: Any, terminal: Terminal, slug: str, number: int) -> dict[str, Any]:
    from ciserver.cli.follow import Follower

    return asyncio.run(Follower(client, terminal, slug, number).run())


def _nowhere() -> Any:
    import io

    return io.StringIO()


def _params(items: list[str]) -> dict[str, str]:
    for item in items:
        if not item.partition("=")[0].strip() or "=" not in item:
            raise Refused(f"--param {item}: expected KEY=VALUE")
    return dict(item.split("=", 1) for item in items)
