"""What a row of the agent's option table is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

Kind = Literal["text", "path", "flag", "number", "size", "duration", "list", "map"]


@dataclass(frozen=True, slots=True)
class Synonym:
    """A variable of another agent. `read` turns its text (and the environment) into ours.

    `separator` splits the key of a map's entry from its value; empty: as the row says. `spaces`:
    items of a list may also be separated by white space.
    """

    name: str
    read: Callable[[str, Mapping[str, str]], str] | None = None
    separator: str = ""
    spaces: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """How one option is given. `low` and `high` bound numbers, sizes and durations (inclusive)."""

    kind: Kind
    help: str
    synonyms: tuple[Synonym, ...] = ()
    #: Further flag and file names.
    aliases: tuple[str, ...] = ()
    secret: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    #: How entries of a map are split: at the first of these characters.
    separator: str = "=:"
    #: The default as the documentation shows it.
    shown: str = ""
    must_exist: bool = False


def _row(kind: Kind, default: Any, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """A dataclass field that carries its row. `semaphore` adds the name of Semaphore's agent."""
    semaphore = more.pop("semaphore", False)
    synonyms = [name if isinstance(name, Synonym) else Synonym(name) for name in drone]
    row = Row(kind, text, tuple(synonyms), **more)
    metadata = {"row": row, "semaphore": semaphore}
    secret = row.secret
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


def text_row(default: str, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """Text as it is given."""
    return _row("text", default, text, *drone, **more)


def path_row(default: str | Path, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """A path; `~` is understood."""
    return _row("path", default, text, *drone, **more)


def flag_row(default: bool, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """True by being there."""
    return _row("flag", default, text, *drone, **more)


def number_row(default: int, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """A whole number."""
    return _row("number", default, text, *drone, **{"low": 0, **more})


def size_row(default: int, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """Bytes, with units."""
    return _row("size", default, text, *drone, **{"low": 0, **more})


def duration_row(default: float, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """Seconds, with units."""
    return _row("duration", default, text, *drone, **{"low": 0, **more})


def list_row(default: tuple[str, ...], text: str, *drone: str | Synonym, **more: Any) -> Any:
    """Items separated by commas."""
    return _row("list", default, text, *drone, **more)


def map_row(text: str, *drone: str | Synonym, **more: Any) -> Any:
    """Entries of name and value."""
    return _row("map", {}, text, *drone, **more)
