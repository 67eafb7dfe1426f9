"""The key of a repository, for commands that sign and encrypt without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ciserver.cli.terminal import Refused


def key(file: str) -> str:
    """The key in a file, `-` for standard input; white space around it does not count.

    Raises: Refused.
    """
    if file == "-":
        return sys.stdin.read().strip()
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(f"cannot read the key in {file}: {fault}") from None


def by_server(repo: str, call: str, data: str) -> str:
    """What the server makes of `data` with the key of a repository, which it does not give away.

    Raises: Refused.
    """
    from ciserver.cli.client import Client, access

    answer: Any = Client(access()).call(
        "POST", f"/api/repos/{quote(repo)}/{call}", json={"data": data}
    )
    return str(answer["data"])


def check(repo: str, key_file: str) -> None:
    """Refuse what names neither a repository nor a key.

    Raises: Refused.
    """
    if bool(repo) == bool(key_file):
        raise Refused("name the repository with --repo owner/name, or its key with --key-file")
