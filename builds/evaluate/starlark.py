"""Evaluate Starlark. Source: Drone's converter (reference: pipeline format, section 10)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import starlark

from builds.evaluate.errors import LIMIT, Failed

MAX_CALLS: Final = 200
#: Starlark asks whether to go on after so many steps.
STEPS_PER_CHECK: Final = 1000

_ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)
_PLACE = re.compile(r"^ *--> (.*):(\d+):(\d+)$", re.MULTILINE)


def evaluate(
    name: str,
    source: str,
    data: Mapping[str, Any],
    step_limit: int,
    show: Callable[[str], None],
) -> list[str]:
    """The documents that `main(ctx)` returns, one dict or a list of them, as JSON text.

    `data` has the maps build, repo and input that `ctx` gives as attributes; `show` takes what the
    program prints. `load` is forbidden.

    Raises: Failed.
    """
    steps = _Steps(step_limit)
    options = starlark.EvalOptions(check_cancelled=steps.spent, max_callstack_size=MAX_CALLS)
    module = starlark.Module()
    module.add_callable("print", lambda *words: show(" ".join(map(str, words))))
    dialect = starlark.Dialect.extended()
    dialect.enable_load = False
    call = f"main({_context(data)})"
    structs = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    try:
        program = starlark.parse(name, source, dialect)
        starlark.eval_with(options, module, program, starlark.Globals.standard())
        result = starlark.eval_with(options, module, starlark.parse("call", call), structs).value
    except starlark.StarlarkError as fault:
        raise _failed(str(fault), name, steps) from fault
    documents = result if isinstance(result, list) else [result]
    if not all(isinstance(one, dict) for one in documents):
        raise Failed("main must return a dict or a list of dicts")
    return [_dumped(one) for one in documents]


class _Steps:
    """Counts steps; says when the limit is reached."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def spent(self) -> bool:
        self.left -= STEPS_PER_CHECK
        return self.left < 0


def _context(data: Mapping[str, Any]) -> str:
    """A Starlark expression for `ctx`: structs of values."""
    parts = []
    for section, value in data.items():
        if section == "input":
            parts.append(f"{section}={_literal(value)}")
            continue
        fields = ", ".join(f"{key}={_literal(item)}" for key, item in value.items())
        parts.append(f"{section}=struct({fields})")
    return f"struct({', '.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        items = (f"{_literal(str(key))}: {_literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value) if value is None or isinstance(value, (bool, float)) else _quoted(value)


def _quoted(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dumped(document: object) -> str:
    try:
        return json.dumps(document, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as fault:
        raise Failed(f"main returned what JSON cannot hold: {fault}") from fault


def _failed(text: str, name: str, steps: _Steps) -> Failed:
    found = _ERROR.search(text)
    places = [place for place in _PLACE.finditer(text) if place[1] == name]
    line, column = (int(places[-1][2]), int(places[-1][3])) if places else (0, 0)
    if steps.left < 0:
        return Failed(f"more than {steps.limit} steps", line, column, LIMIT)
    message = found[1] if found else text.splitlines()[0]
    if "`main` not found" in message:
        message = "the program has to define a function main(ctx)"
    return Failed(message, line, column)
