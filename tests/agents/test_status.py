from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from agents.options import Options
from agents.status import SHOWN, Board, StatusServer
from pipeline.spec import StageSpec


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def board() -> Board:
    clock = Clock()
    board = Board(clock)
    board.begin("a", StageSpec("octocat/<hello>", 1, 2, name="test"))
    clock.now += 5
    board.end("a", "success")
    board.begin("b", StageSpec("octocat/world", 3, 4))
    return board


def serve(board: Board, **given: Any) -> StatusServer:
    options = Options(server="http://ci", token="x", http_bind="127.0.0.1:0", **given)
    return StatusServer(options, board, lambda: {"name": "builder-1"})


@pytest.fixture
def server(board: Board) -> Iterator[StatusServer]:
    server = serve(board, ui_username="me", ui_password="pass:word")
    yield server
    server.close()


def get(server: StatusServer, path: str, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(server.address, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, text, answer.headers.get("WWW-Authenticate", "")
    finally:
        connection.close()


def login(text: str = "me:pass:word") -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def test_it_is_healthy_for_everybody(server: StatusServer) -> None:
    assert get(server, "/healthz")[:2] == (200, "OK\n")


def test_the_page_shows_stages_to_who_knows_the_password(server: StatusServer) -> None:
    status, text, _ = get(server, "/", Authorization=login())

    assert status == 200
    assert "builder-1" in text
    assert "octocat/&lt;hello&gt;" in text
    assert text.index("octocat/world") < text.index("octocat/&lt;")


def test_the_page_is_data_for_who_asks(server: StatusServer) -> None:
    _, text, _ = get(server, "/", Authorization=login(), Accept="application/json")

    data = json.loads(text)
    assert data["agent"] == {"name": "builder-1"}
    assert [stage["status"] for stage in data["stages"]] == ["running", "success"]
    assert data["stages"][1]["stopped"] - data["stages"][1]["started"] == 5


@pytest.mark.parametrize("given", ["", login("me:wrong"), login("you:pass:word"), "Basic %%%"])
def test_the_page_is_hidden_from_others(server: StatusServer, given: str) -> None:
    status, _, challenge = get(server, "/", **({"Authorization": given} if given else {}))

    assert status == 401
    assert challenge.startswith('Basic realm="MyRealm"')


def test_there_is_no_page_without_a_password(board: Board) -> None:
    server = serve(board)
    try:
        assert get(server, "/")[0] == 404
        assert get(server, "/healthz")[0] == 200
    finally:
        server.close()


def test_it_forgets_old_stages() -> None:
    board = Board(Clock())
    for number in range(SHOWN + 5):
        board.begin(str(number), StageSpec("a/b", number, 1))
        board.end(str(number), "success")
    board.end("unknown", "success")

    assert [note.build for note in board.notes()] == list(range(SHOWN + 4, 4, -1))
