"""The limited process: reads one program, writes the pipeline file it makes.

Messages are lines of JSON. In: the request; then, per import, `{"text": str or null}`. Out:
`{"import": path}`, and at the end `{"text": str, "printed": [str]}` or
`{"failed": str, "line": int, "column": int, "code": str}`.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

from builds.evaluate.errors import LIMIT, Failed


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.readline())
    limits = request["limits"]
    _limit(limits)
    try:
        _say(_answer(request, limits))
    except Failed as fault:
        failed = {"line": fault.line, "column": fault.column, "code": fault.code}
        _say({"failed": str(fault), **failed})
    except (MemoryError, RecursionError):
        _say({"failed": "the program needs too much memory", "code": LIMIT})


def _limit(limits: Mapping[str, int]) -> None:
    """Bound what this process may use before it sees the program."""
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _answer(request: Mapping[str, Any], limits: Mapping[str, int]) -> dict[str, Any]:
    printed: list[str] = []
    documents = _documents(request, limits, printed)
    text = "".join(documents)
    if len(text.encode()) > limits["output_bytes"]:
        raise Failed(f"the result is longer than {limits['output_bytes']} bytes", code=LIMIT)
    return {"text": text, "printed": printed}


def _documents(
    request: Mapping[str, Any], limits: Mapping[str, int], printed: list[str]
) -> list[str]:
    name, source, data = request["name"], request["source"], request["data"]
    if request["language"] == "jsonnet":
        from builds.evaluate import jsonnet

        found = jsonnet.evaluate(name, source, data, _fetch, limits["imports"])
    elif request["language"] == "starlark":
        from builds.evaluate import starlark

        found = starlark.evaluate(name, source, data, limits["steps"], printed.append)
    else:
        from builds.evaluate.gotemplate import render

        return [render(source, data, limits["steps"], limits["output_bytes"])]
    return ["---\n" + document for document in found]


def _fetch(path: str) -> str | None:
    _say({"import": path})
    text = json.loads(sys.stdin.readline())["text"]
    return None if text is None else str(text)


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
