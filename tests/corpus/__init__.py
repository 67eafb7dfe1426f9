"""Where the shared collections of real files are: `CISERVER_CORPUS`, or beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

SETTING = "CISERVER_CORPUS"
CHECKOUT = Path(__file__).resolve().parents[2]


def folder(name: str) -> Path | None:
    """A collection's folder; None where it is absent and no CI run needs it.

    Raises: FileNotFoundError in a CI run.
    """
    path = Path(os.environ.get(SETTING) or CHECKOUT.parent / "shared" / "corpus") / name
    if path.is_dir():
        return path
    if os.environ.get("CI"):
        raise FileNotFoundError(f"{path} is absent: {SETTING} says where the corpus is")
    return None
