from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser

import pytest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.test import Client, RequestFactory

from dashboard import security
from tests.dashboard import seed


class InlineCode(HTMLParser):
    """Finds what the policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [f"{tag}[{name}]" for name in names if re.match(r"on|style$|hx-on", name)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/octocat/web", "/octocat/web/48", "/octocat/web/47/1/4?q=fail", "/agents",
     "/account", "/add", "/octocat/web/settings", "/octocat/web/new", "/no/such"],
)  # fmt: skip
def test_no_page_has_code_in_it(path: str) -> None:
    team = seed.rich()
    client = Client()
    if path != "/login":
        client.force_login(team.admin)

    response = client.get(path)

    finder = InlineCode()
    finder.feed(response.content.decode())
    assert finder.found == []
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_it_names_the_sockets_of_its_own_host() -> None:
    request = RequestFactory().get("/", headers={"host": "ci.example.com"})

    assert "connect-src 'self' ws://ci.example.com wss://ci.example.com" in security.policy(request)


def test_a_strange_host_gets_no_sockets() -> None:
    request = RequestFactory().get("/", headers={"host": "evil.example; script-src *"})

    assert security.policy(request).endswith("connect-src 'self'")


def test_an_answer_may_bring_its_own_policy() -> None:
    def view(_request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={security.HEADER: "sandbox"})

    middleware = security.content_security_policy(view)

    response = middleware(RequestFactory().get("/"))
    assert isinstance(response, HttpResponse)
    assert response.headers[security.HEADER] == "sandbox"


def test_it_covers_async_answers() -> None:
    async def view(_request: HttpRequest) -> HttpResponseBase:
        return HttpResponse()

    middleware = security.content_security_policy(view)

    response = asyncio.run(middleware(RequestFactory().get("/")))  # type: ignore[arg-type]
    assert "default-src 'none'" in response.headers[security.HEADER]


@pytest.mark.parametrize("name", ["400", "403_csrf", "500"])
def test_pages_for_faults_need_nothing_but_themselves(name: str) -> None:
    page = render_to_string(f"{name}.html")

    assert "<h1>" in page
    assert 'href="/"' in page
