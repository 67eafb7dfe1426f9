"""The secrets of an installation, made at its first start and kept in the data dir."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


#: File name in `keys/` → what makes its content. `ciserver.env` reads them under these names.
MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "secret_key": lambda: secrets.token_urlsafe(48),
    "encryption_keys": _fernet_key,
    "join_token": lambda: "cij_" + secrets.token_hex(24),
    "redis_server": lambda: secrets.token_hex(24),
    "redis_agents": lambda: secrets.token_hex(24),
}


def ensure(data_dir: Path) -> bool:
    """Make what is missing under `data_dir/keys` (0600 in a 0700 folder); whether any was.

    Raises: OSError where the folder cannot be written.
    """
    folder = data_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [write(folder / name, maker) for name, maker in MAKERS.items()]
    return any(made)


def write(path: Path, maker: Callable[[], str], *, replace: bool = False) -> bool:
    """Write a new secret to `path` unless it exists or may be replaced; whether it was written."""
    if path.exists() and not replace:
        return False
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(maker() + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return True
