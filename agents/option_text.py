"""The options as people read them: the help of `ci-agent` and the page docs/agent-options.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from agents.option_rows import GIB, MIB
from agents.option_table import GROUPS, Entry, entries

_PAGE_HEAD: Final = """\
# Options of the agent

Every option can be given as a flag of `ci-agent start` (`--key value`), as a variable
`CISERVER_AGENT_KEY` (dashes become underscores), or as a key of the YAML file that `--config` (or
`--config-file`) names. A flag beats a variable, a variable beats the file, the file beats the
default. Two are required: `server` and `token`.

Lists are comma separated (an item in double quotes may contain commas), a flag may be repeated, and
the file may have a YAML list. Maps are `NAME=VALUE` entries, in the file also a YAML map. Sizes
take `k`, `m`, `g`, `t` (times 1024), durations `ms`, `s`, `m`, `h`; a bare number is bytes or
seconds. A flag is true by being there, `--no-key` makes it false. A secret may stand in a file that
`CISERVER_AGENT_KEY_FILE` names.

An option that does not exist, a bad value and a contradiction end the agent with one line and exit
code 2 before it has connected to anything. `ci-agent check --offline` tells beforehand. The keys of
Semaphore's agent that begin with `kubernetes-` are refused: this agent runs no pods.

*Also read from* lists the variables of Drone's and Semaphore's agents that mean the same, with
their typing errors. The agent's own variable wins over them; two of them that disagree are a
contradiction. `DRONE_RPC_PROTO` (default `http`) goes with `DRONE_RPC_HOST`.

This page is made from the table in `agents/option_table.py` by `ci-agent options`.
"""
_WIDTH: Final = 78


def page() -> str:
    """The documentation of every option, as Markdown."""
    parts = [_PAGE_HEAD]
    for title, group in _groups():
        rows = "".join(_page_row(entry) for entry in group)
        head = "| Option | Default | Effect | Also read from |\n|---|---|---|---|\n"
        parts.append(f"\n## {title}\n\n{head}{rows}")
    return "".join(parts)


def help_text() -> str:
    """The options for a terminal."""
    parts = []
    for title, group in _groups():
        parts.append(f"\n{title}:\n")
        parts.extend(_help_row(entry) for entry in group)
    return "".join(parts)


def _groups() -> Iterator[tuple[str, list[Entry]]]:
    starts = {field: title for title, field in GROUPS}
    title, group = "", list[Entry]()
    for entry in entries().values():
        if entry.field in starts:
            if group:
                yield title, group
            title, group = starts[entry.field], []
        group.append(entry)
    yield title, group


def _page_row(entry: Entry) -> str:
    names = ", ".join(f"`{name}`" for name in entry.keys)
    others = ", ".join(f"`{synonym.name}`" for synonym in entry.row.synonyms)
    cells = (names, _shown_default(entry), _effect(entry), others)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _help_row(entry: Entry) -> str:
    value = "" if entry.row.kind == "flag" else f" {_METAVARS[entry.row.kind]}"
    default = _shown_default(entry).replace("`", "")
    note = f" Default: {default}." if default else ""
    text = textwrap.fill(
        _effect(entry).replace("`", "") + note,
        _WIDTH,
        initial_indent="      ",
        subsequent_indent="      ",
    )
    return f"  --{entry.key}{value}\n{text}\n"


def _effect(entry: Entry) -> str:
    row = entry.row
    choices = f" One of {', '.join(f'`{one}`' for one in row.choices)}." if row.choices else ""
    return row.help + choices


def _shown_default(entry: Entry) -> str:
    if entry.row.shown:
        return entry.row.shown
    text = _default_text(entry.row.kind, entry.default)
    return f"`{text}`" if text else ""


def _default_text(kind: str, value: Any) -> str:
    if kind == "flag":
        return "true" if value else "false"
    if kind == "size":
        return _size(value)
    if kind == "duration":
        return _duration(value)
    if isinstance(value, (tuple, Mapping)):
        return ",".join(value)
    return "" if value in ("", Path()) else str(value)


def _size(value: int) -> str:
    for unit, factor in (("GiB", GIB), ("MiB", MIB)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def _duration(value: float) -> str:
    for unit, factor in (("h", 3600), ("m", 60)):
        if value and value % factor == 0:
            return f"{value / factor:g}{unit}"
    return f"{value:g}s" if value else "0"


_METAVARS: Final[Mapping[str, str]] = {
    "text": "TEXT",
    "path": "PATH",
    "number": "NUMBER",
    "size": "SIZE",
    "duration": "DURATION",
    "list": "ITEM,...",
    "map": "NAME=VALUE,...",
}
