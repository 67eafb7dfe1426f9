"""`ci agents`: who runs builds, and what to tell them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from ciserver.cli.terminal import Refused, Terminal

app = typer.Typer(rich_markup_mode=None, add_completion=False)

#: What one may tell an agent: the call, and what is said when it is done.
_WORDS: Final[dict[str, tuple[str, str, dict[str, Any] | None, str]]] = {
    "drain": ("PATCH", "", {"drain": True}, "finishes what it has and takes nothing new"),
    "undrain": ("PATCH", "", {"drain": False}, "takes work again"),
    "disable": ("PATCH", "", {"disabled": True}, "finishes what it has, then leaves"),
    "enable": ("PATCH", "", {"disabled": False}, "may work again"),
    "revoke": ("POST", "/revoke", None, "is shut out"),
    "delete": ("DELETE", "", None, "is forgotten"),
}
_COLOURS: Final = {"idle": "32", "busy": "33", "lost": "31"}


@app.command()
def agents(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="an agent")] = "",
    word: Annotated[
        str, typer.Argument(metavar="[ACTION]", help=f"one of {', '.join(_WORDS)}")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    labels: Annotated[
        str | None,
        typer.Option(help="give it these labels, such as zone=a,disk=ssd; `own`: its own"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="delete it even if it is there")] = False,
) -> None:
    """Show the agents, or tell one of them something. For administrators."""
    from ciserver.cli.client import Client, access

    if word and word not in _WORDS:
        raise Refused(f"there is no action {word}: expected one of {', '.join(_WORDS)}")
    client, terminal = Client(access()), Terminal()
    rows = client.agents()
    if name:
        rows = [row for row in rows if row["name"] == name]
        if not rows:
            raise Refused(f"there is no agent {name} on {client.access.url}")
    if labels is not None:
        _relabel(client, terminal, rows, name, labels)
    if word:
        _tell(client, terminal, rows[0], word, force)
    elif labels is None:
        _show(terminal, rows, as_json)


def _relabel(client: Any, terminal: Terminal, rows: list[Any], name: str, labels: str) -> None:
    if not name:
        raise Refused("labels: which agent? `ci agents NAME --labels …`")
    body = {"labels": None if labels == "own" else _labels(labels)}
    client.call("PATCH", f"/api/agents/{rows[0]['id']}", json=body)
    terminal.line(f"{name} has {'its own' if labels == 'own' else 'other'} labels")


def _tell(client: Any, terminal: Terminal, row: dict[str, Any], word: str, force: bool) -> None:
    method, path, body, said = _WORDS[word]
    query = {"force": "true"} if force else None
    client.call(method, f"/api/agents/{row['id']}{path}", json=body, params=query)
    terminal.line(f"{row['name']} {said}")


def _labels(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in text.split(",") if item]
    if not all(key and equals for key, equals, _ in pairs):
        raise Refused(f"labels: expected NAME=VALUE,…, got {text}")
    return {key: value for key, _, value in pairs}


def _show(terminal: Terminal, rows: list[Any], as_json: bool) -> None:
    if as_json:
        terminal.line(json.dumps(rows))
        return
    for row in rows:
        terminal.line(_line(terminal, row))
    if not rows:
        terminal.line("no agent has joined yet")


def _line(terminal: Terminal, row: dict[str, Any]) -> str:
    status = terminal.paint(f"{row['status']:<9}", _COLOURS.get(row["status"], "0"))
    platform = f"{row['os']}/{row['arch']}"
    load = f"{row['busy']}/{row['capacity']} load {row['load']:.2f}"
    labels = ",".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))
    types = ",".join(row["types"])
    line = f"{row['name']:<30} {status} {platform:<12} {types:<12} {load:<14} {row['version']}"
    return f"{line} {labels}".rstrip()
