"""Evaluate Jsonnet. Source: Drone's converter (reference: pipeline format, section 10)."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Final

import _jsonnet

from builds.evaluate.errors import LIMIT, Failed

MAX_STACK: Final = 500

#: A line of JSON that ends with an empty list or object.
_EMPTY = re.compile(r'^( *(?:"(?:[^"\\]|\\.)*": )?)([\[{])([\]}])(?=,?$)')
_CONTROL = re.compile(r"[\x7f-\x9f]")
_PLACE = re.compile(r":\(?(\d+):(\d+)")

Fetch = Callable[[str], str | None]


def evaluate(
    name: str, source: str, variables: Mapping[str, str], fetch: Fetch, import_limit: int
) -> list[str]:
    """The documents of a program as JSON text: the items of a top-level list, or one.

    `variables` are what `std.extVar` knows; `fetch` reads a file of the same commit.

    Raises: Failed.
    """
    try:
        text = _jsonnet.evaluate_snippet(
            name,
            source,
            ext_vars=dict(variables),
            import_callback=_Imports(fetch, import_limit),
            max_stack=MAX_STACK,
        )
    except RuntimeError as fault:
        raise _failed(str(fault), name) from fault
    value = json.loads(text)
    documents = value if isinstance(value, list) else [value]
    return [_written(one) + "\n" for one in documents]


def _written(value: object) -> str:
    """A value as Jsonnet itself writes it: signatures are made of this text."""
    text = json.dumps(value, indent=3, ensure_ascii=False)
    lines = (_EMPTY.sub(r"\1\2 \3", line) for line in text.split("\n"))
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", "\n".join(lines))


class _Imports:
    """Reads imported files: relative to the importing one, within the repository, so many."""

    def __init__(self, fetch: Fetch, limit: int) -> None:
        self._fetch = fetch
        self._limit = limit
        self._count = 0

    def __call__(self, folder: str, name: str) -> tuple[str, bytes]:
        path = posixpath.normpath(posixpath.join(folder, name))
        if self._limit <= 0:
            raise ImportError("imports are disabled on this server")
        if name.startswith("/") or path.startswith(".."):
            raise ImportError("only files of the same repository can be imported")
        self._count += 1
        if self._count > self._limit:
            raise ImportError(f"more than {self._limit} imports")
        text = self._fetch(path)
        if text is None:
            raise ImportError("there is no such file at this commit")
        return path, text.encode()


def _failed(text: str, name: str) -> Failed:
    message, _, trace = text.partition("\n")
    kind, _, rest = message.partition(": ")
    if "max stack frames exceeded" in rest:
        return Failed(f"recursion deeper than {MAX_STACK} calls", code=LIMIT)
    own = next((line for line in (message, *trace.splitlines()) if f"{name}:" in line), "")
    place = _PLACE.search(own, own.find(f"{name}:"))
    if kind == "STATIC ERROR":
        rest = rest.partition(": ")[2] or rest
    line, column = (int(place[1]), int(place[2])) if place else (0, 0)
    return Failed(rest or message, line, column)
