"""`ci lint`: say what is wrong with pipeline files."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ciserver.cli.files import judged
from pipeline.errors import ERROR, Problem

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def lint(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="default: .drone.yml; -: stdin")
    ] = None,
    trusted: Annotated[bool, typer.Option("--trusted", help="as for a trusted repo")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of findings")] = False,
) -> None:
    """Say what is wrong with pipeline files: every error and warning, with its place.

    Exit code: 0 no errors (warnings at most), 1 errors, 2 a file could not be read.
    """
    found: list[Problem] = []
    for _, one in judged(files or []):
        found += one.lint(trusted=trusted)
    if as_json:
        typer.echo(json.dumps([_json(problem) for problem in found], indent=2))
    else:
        for problem in found:
            typer.echo(text(problem))
    raise typer.Exit(1 if any(problem.severity == ERROR for problem in found) else 0)


def text(problem: Problem) -> str:
    """One line: place, severity, message, code."""
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    return f"{place}: {problem.severity}: {problem.message} [{problem.code}]"


def _json(problem: Problem) -> dict[str, object]:
    fields = asdict(problem)
    keys = ("file", "line", "column", "severity", "code", "message")
    return {key: fields[key] for key in keys}
