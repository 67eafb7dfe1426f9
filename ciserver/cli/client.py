"""Talks to a server's REST API as the person at this terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ciserver import env
from ciserver.cli.terminal import Refused

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server is and what we show it."""

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def socket(self, path: str) -> str:
        """The address of a websocket."""
        return "ws" + self.url.removeprefix("http") + path


def access() -> Access:
    """The server of `CISERVER_SERVER`, else the one that runs on the data dir.

    Raises: Refused.
    """
    settings = env.read()
    if settings.server:
        if not settings.token:
            raise Refused(f"set CISERVER_TOKEN to your token of {settings.server}")
        return Access(settings.server, settings.token)
    url = _read(settings.data_dir / "address")
    token = settings.token or _read(settings.data_dir / "keys" / "user_token")
    if not url or not token:
        raise Refused(
            f"no server has run on {settings.data_dir}: start one with `ci up`, "
            "or set CISERVER_SERVER and CISERVER_TOKEN"
        )
    return Access(url, token)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from None


class Missing(Refused):
    """The server does not know what was asked for."""


class Away(Refused):
    """The server does not answer, or not now: it may be back in a moment."""


class Client:
    """The REST calls that the commands need. Paths and JSON are Drone's."""

    def __init__(self, reach: Access) -> None:
        self.access = reach
        self._http = httpx.Client(
            base_url=reach.url, headers=reach.headers, timeout=TIMEOUT_S, trust_env=False
        )

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer.

        Raises: Refused for an answer that says no; Missing for one that says 404; Away for none.
        """
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Away(f"the server at {self.access.url} does not answer: {error}") from None
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Refused(f"the server at {self.access.url} does not know this token")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise Missing(_message(answer))
        if answer.is_server_error:
            raise Away(_message(answer))
        if answer.is_error:
            raise Refused(_message(answer))
        return answer.json() if answer.content else None

    def repos(self) -> list[Any]:
        """Every repo the caller sees, with its newest build."""
        return list(self.call("GET", "/api/user/repos", params={"latest": "true"}))

    def agents(self) -> list[Any]:
        """Every agent; for administrators."""
        return list(self.call("GET", "/api/agents"))

    def builds(self, slug: str) -> list[Any]:
        """The newest builds of a repo."""
        return list(self._in_repo("GET", slug, "/builds"))

    def build(self, slug: str, number: int) -> Any:
        """A build with its stages and steps."""
        return self._in_repo("GET", slug, f"/builds/{number}")

    def log(self, slug: str, number: int, stage: int, step: int) -> list[Any]:
        """The lines of a step, as `{pos, out, time}`."""
        return self._in_repo("GET", slug, f"/builds/{number}/logs/{stage}/{step}") or []

    def register(self, url: str) -> Any:
        """The repo of a git address, made if there is none yet."""
        return self.call("POST", "/api/repos", json={"git_http_url": url})

    def holds(self, slug: str, number: int) -> list[Any]:
        """Steps of a build that are kept for debugging."""
        return list(self._in_repo("GET", slug, f"/builds/{number}/debug"))

    def create(
        self, slug: str, branch: str, commit: str, params: dict[str, str], *, debug: bool = False
    ) -> Any:
        """A new build; `branch` and `commit` may be empty."""
        named = {"branch": branch, "commit": commit, "debug": "true" if debug else ""}
        query = {**params, **{name: value for name, value in named.items() if value}}
        return self._in_repo("POST", slug, "/builds", params=query)

    def cancel(self, slug: str, number: int) -> None:
        """Cancel a build."""
        self._in_repo("DELETE", slug, f"/builds/{number}")

    def _in_repo(self, method: str, slug: str, path: str, **options: Any) -> Any:
        """A call below a repo; where something is not there, say what."""
        try:
            return self.call(method, f"/api/repos/{quote(slug)}{path}", **options)
        except Missing:
            self._refuse_unknown(slug)
            raise Refused(f"there is no build {path.split('/')[2]} of {slug}") from None

    def _refuse_unknown(self, slug: str) -> None:
        try:
            self.call("GET", f"/api/repos/{quote(slug)}")
        except Missing:
            raise Refused(f"there is no repository {slug} on {self.access.url}") from None


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url.path}: {answer.status_code} {answer.reason_phrase}"
