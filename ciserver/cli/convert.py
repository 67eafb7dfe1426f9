"""`ci convert`: print the modern text of an old or neighbouring pipeline file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli.files import read, workflows
from ciserver.cli.lint import text
from pipeline.convert import combine, modernise
from pipeline.errors import PipelineError
from pipeline.verdict import decode

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def convert(
    file: Annotated[str, typer.Argument(metavar="[FILE|FOLDER]", help="-: stdin")] = ".drone.yml",
) -> None:
    """Print the modern text of a file of the format before 1.0, or of Woodpecker.

    Exit code: 0, 1 if it cannot be converted, 2 if it could not be read.
    """
    try:
        modern = _modern(file)
    except PipelineError as fault:
        for problem in fault.problems:
            typer.echo(text(problem), err=True)
        raise typer.Exit(1) from fault
    typer.echo(modern, nl=not modern.endswith("\n"))


def _modern(file: str) -> str:
    if Path(file).is_dir():
        return combine(workflows(file)).text
    ((path, data),) = read([file])
    return modernise(decode(data, path), path)
