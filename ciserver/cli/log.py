"""`ci log`: print a build's log, or follow it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from ciserver.cli.terminal import Refused, Terminal

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def log(
    build: Annotated[str, typer.Argument(help="such as octocat/hello#7")],
    stage: Annotated[str, typer.Argument(help="name or number of a stage")] = "",
    step: Annotated[str, typer.Argument(help="name or number of a step")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="until the build ends")] = False,
) -> None:
    """Print what a build's steps wrote: of all, of one stage, or of one step alone."""
    from ciserver.cli.client import Client, access
    from ciserver.cli.follow import Follower
    from ciserver.cli.subject import build_number

    client = Client(access())
    slug, number = build_number(client, build)
    chosen = Chosen(stage, step)
    if not follow or stage:
        chosen.check(client.build(slug, number))
    follower = Follower(client, Terminal(), slug, number, chosen, names=not step, moves=not stage)
    asyncio.run(follower.run() if follow else follower.print_now())


class Chosen:
    """Which steps a person asked for; empty words mean all."""

    def __init__(self, stage: str, step: str) -> None:
        self._stage = stage
        self._step = step

    def __call__(self, stage: dict[str, Any], step: dict[str, Any]) -> bool:
        """Whether this step is one of them."""
        return _is(self._stage, stage) and _is(self._step, step)

    def check(self, build: dict[str, Any]) -> None:
        """Raises: Refused if the build has no such stage, or the stage no such step."""
        stages = build.get("stages") or []
        matching = [stage for stage in stages if _is(self._stage, stage)]
        if not matching and self._stage:
            raise Refused(f"there is no stage {self._stage}; there are {_names(stages)}")
        steps = [step for stage in matching for step in stage.get("steps") or []]
        if self._step and steps and not any(_is(self._step, step) for step in steps):
            raise Refused(f"there is no step {self._step}; there are {_names(steps)}")


def _is(word: str, item: dict[str, Any]) -> bool:
    return word in ("", item["name"], str(item["number"]))


def _names(items: list[dict[str, Any]]) -> str:
    return ", ".join(str(item["name"]) for item in items) or "none"
