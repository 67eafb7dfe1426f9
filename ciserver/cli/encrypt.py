"""`ci encrypt`: encrypt a secret for a pipeline file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from builds.encryption import encrypt
from ciserver.cli.keys import by_server, check, key
from ciserver.cli.terminal import Refused
from pipeline.errors import UserError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("encrypt")
def encrypt_command(
    text: Annotated[str, typer.Argument(help="the secret; @FILE: its content, -: stdin")],
    repo: Annotated[str, typer.Option(help="owner/name; its server encrypts")] = "",
    key_file: Annotated[str, typer.Option(help="the repository's key; -: stdin")] = "",
    name: Annotated[str, typer.Option(help="print the whole secret document, so named")] = "",
) -> None:
    """Encrypt a secret so that only builds of one repository can read it.

    Exit code: 0, 2 if it could not be encrypted.
    """
    check(repo, key_file)
    if text == key_file == "-":
        raise Refused("only one of the secret and the key can come from standard input")
    value = _value(text)
    try:
        data = encrypt(key(key_file), value) if key_file else by_server(repo, "encrypt", value)
    except UserError as fault:
        raise Refused(str(fault)) from fault
    typer.echo(f"---\nkind: secret\nname: {name}\ndata: {data}" if name else data)


def _value(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(f"cannot read {text[1:]}: {fault}") from None
