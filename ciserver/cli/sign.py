"""`ci sign`: sign a pipeline file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli.files import read
from ciserver.cli.keys import by_server, check, key
from ciserver.cli.terminal import Refused
from pipeline.errors import UserError
from pipeline.signature import attach, sign
from pipeline.verdict import decode

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("sign")
def sign_command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="-: stdin")] = ".drone.yml",
    repo: Annotated[str, typer.Option(help="owner/name; its server signs")] = "",
    key_file: Annotated[str, typer.Option(help="the repository's key; -: stdin")] = "",
    save: Annotated[bool, typer.Option("--save", help="write the signature into the file")] = False,
) -> None:
    """Print the signature of a pipeline file, or save it in the file; one from stdin is printed.

    Exit code: 0, 2 if it could not be signed.
    """
    check(repo, key_file)
    if file == key_file == "-":
        raise Refused("only one of the file and its key can come from standard input")
    ((name, data),) = read([file])
    try:
        text = decode(data, name)
        hmac = sign(text, key(key_file)) if key_file else by_server(repo, "sign", text)
    except UserError as fault:
        raise Refused(str(fault)) from fault
    if not save:
        typer.echo(hmac)
        return
    if file == "-":
        typer.echo(attach(text, hmac), nl=False)
        return
    try:
        Path(file).write_text(attach(text, hmac), encoding="utf-8")
    except OSError as fault:
        raise Refused(f"{file}: {fault.strerror or fault}") from fault
