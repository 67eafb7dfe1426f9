from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agents.extensions import _extension, extend, signed
from agents.options import Options
from pipeline.spec import Auth, External, StageSpec, StepSpec

KEY = "bea26a2221fd8090ea38720fc445eca6"


class Extension:
    """An extension that proves who asks and answers what it was told."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer._check(self.headers, body)
                outer.asked.append(json.loads(body))
                kind = self.headers["Accept"].split(".")[2]
                data = outer.answers.get(kind)
                if kind == "secret" and data is not None:
                    data = data.get(outer.asked[-1]["path"])
                answer = b"" if data is None else json.dumps(data).encode()
                self.send_response(204 if data is None else outer.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _check(self, headers: Any, body: bytes) -> None:
        """As drone-go's handler does."""
        names = ("accept", "accept-encoding", "content-type", "date", "digest")
        text = "\n".join(f"{name}: {headers[name]}" for name in names)
        proof = hmac.new(KEY.encode(), text.encode(), hashlib.sha256).digest()
        assert f'signature="{base64.b64encode(proof).decode()}"' in headers["Signature"]
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        assert headers["Digest"] == f"SHA-256={digest}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def extension() -> Iterator[Extension]:
    found = Extension()
    yield found
    found.close()


def options(url: str, *kinds: str) -> Options:
    given: dict[str, Any] = {f"{kind}_plugin_endpoint": url for kind in kinds}
    given |= {f"{kind}_plugin_token": KEY for kind in kinds}
    return Options(server="http://ci", token="x", **given)


def stage(**given: Any) -> StageSpec:
    step = StepSpec(1, "one", secrets={"A": "known", "B": "unknown", "C": "nobody"})
    about = {"event": "push", "environment": {"OWN": "1"}, "secrets": {"known": "x"}}
    return StageSpec("octocat/hello", 7, 1, **{**about, "steps": (step,), **given})


def test_without_extensions_nothing_is_asked() -> None:
    spec = stage()

    assert extend(spec, Options(server="http://ci", token="x")) is spec


def test_variables_are_below_all_others_and_masked_where_told(extension: Extension) -> None:
    extension.answers["env"] = [
        {"name": "OWN", "data": "theirs"},
        {"name": "NEW", "data": "2"},
        {"name": "HIDDEN", "data": "hunter2", "mask": True},
    ]

    spec = extend(stage(), options(extension.url, "env"))

    assert spec.environment == {"OWN": "1", "NEW": "2", "HIDDEN": "hunter2"}
    assert spec.masks == ("hunter2",)
    assert extension.asked[0]["repo"]["slug"] == "octocat/hello"
    assert (extension.asked[0]["build"]["number"], extension.asked[0]["build"]["event"]) == (
        7,
        "push",
    )


def test_variables_may_be_a_map(extension: Extension) -> None:
    extension.answers["env"] = {"NEW": "2"}

    assert extend(stage(), options(extension.url, "env")).environment["NEW"] == "2"


PLACES = (External("known", "at/known", "k"), External("unknown", "at/unknown", "u"))


def test_secrets_are_asked_for_where_the_file_says_they_are(extension: Extension) -> None:
    extension.answers["secret"] = {"at/unknown": {"name": "u", "data": "hunter2"}}
    places = (*PLACES, External("nobody", "at/nobody", "n"))

    spec = extend(stage(external=places), options(extension.url, "secret"))

    assert spec.secrets == {"known": "x", "unknown": "hunter2"}
    asked = [(question["path"], question["name"]) for question in extension.asked]
    assert asked == [("at/unknown", "u"), ("at/nobody", "n")]


def test_a_store_is_told_where_a_pull_request_comes_from(extension: Extension) -> None:
    about = {"event": "pull_request", "source_repo": "someone/hello", "fork": True}

    extend(stage(external=PLACES, **about), options(extension.url, "secret"))

    build = extension.asked[0]["build"]
    assert (build["event"], build["source_repo"]) == ("pull_request", "someone/hello")


def test_a_secret_of_no_place_is_not_asked_for(extension: Extension) -> None:
    extend(stage(), options(extension.url, "secret"))

    assert extension.asked == []


def test_a_pull_secret_may_be_in_a_store(extension: Extension) -> None:
    own, text = Auth("docker.io", "me", "mine"), '{"auths": {"r.io": {"auth": "dTpwNHNz"}}}'
    extension.answers["secret"] = {"at/login": {"data": text}}
    spec = stage(
        auths=(own,), pull_secrets=("login", "gone"), external=(External("login", "at/login"),)
    )

    spec = extend(spec, options(extension.url, "secret"))

    assert spec.auths == (own, Auth("r.io", "u", "p4ss"))
    assert (spec.secrets, spec.masks) == ({"known": "x"}, ("p4ss",))


def test_logins_come_after_the_pipelines(extension: Extension) -> None:
    own = Auth("docker.io", "me", "mine")
    extension.answers["registry"] = [
        {"address": "https://index.docker.io/v1/", "username": "u", "password": "p4ss"},
        {"address": "", "username": "u"},
    ]

    spec = extend(stage(auths=(own,)), options(extension.url, "registry"))

    assert spec.auths == (own, Auth("docker.io", "u", "p4ss"))
    assert spec.masks == ("p4ss",)


@pytest.mark.parametrize("answer", ["text", [1, 2], 3, [{"data": 1}]])
def test_an_odd_answer_adds_nothing(extension: Extension, answer: Any) -> None:
    extension.answers = {"env": answer, "registry": answer, "secret": {"at/unknown": answer}}
    spec = stage(external=PLACES)

    assert extend(spec, options(extension.url, "env", "secret", "registry")) == spec


def test_an_extension_that_fails_adds_nothing(extension: Extension) -> None:
    extension.status = 500
    extension.answers = {"env": {"NEW": "2"}}
    spec = stage()

    assert extend(spec, options(extension.url, "env")) == spec
    assert extend(spec, options("http://127.0.0.1:1", "env")) == spec


def test_the_signature_is_drones() -> None:
    headers = signed(b"{}", "application/json", KEY, "Sun, 06 Nov 1994 08:49:37 GMT")

    assert headers["digest"] == "SHA-256=RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="
    assert headers["signature"].startswith(
        'keyId="hmac-key",algorithm="hmac-sha256",'
        'headers="accept accept-encoding content-type date digest",signature="'
    )


def test_it_is_asked_through_the_proxy_of_the_agent(extension: Extension) -> None:
    extension.answers = {"env": [{"name": "A", "data": "1"}]}
    given = options("http://env.example.com", "env")
    through = replace(given, http_proxy=extension.url)
    assert extend(stage(), through).environment["A"] == "1"
    past = replace(through, no_proxy=".example.com")
    assert "A" not in extend(stage(), past).environment


@pytest.mark.parametrize("kind", ["env", "secret", "registry"])
def test_a_certificate_is_verified_unless_told_otherwise(kind: str) -> None:
    given = options("https://ext.example.com", kind)
    assert _extension(kind, given).tls.verify_mode is ssl.CERT_REQUIRED
    trusting = replace(given, **{f"{kind}_plugin_skip_verify": True})
    assert _extension(kind, trusting).tls.verify_mode is ssl.CERT_NONE
