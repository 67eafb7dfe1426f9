from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.auths import find, parse, registry_host
from pipeline.spec import Auth


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_every_form_of_an_entry() -> None:
    config = {
        "auths": {
            "https://index.docker.io/v1/": {"auth": packed("octocat:pass:word")},
            "quay.io": {"username": "u", "password": "p"},
            "both.example.com": {"username": "u", "password": "p", "auth": packed("a:b")},
            "http://local:5000/v2": {"auth": packed("_json_key:{}") + "\n"},
            "nothing.example.com": {},
            "bad.example.com": {"auth": "!"},
            "odd.example.com": "x",
            "numbers.example.com": {"username": 1, "password": 2},
        },
        "credHelpers": {"gcr.io": "gcloud"},
    }
    assert parse(json.dumps(config)) == (
        Auth("docker.io", "octocat", "pass:word"),
        Auth("quay.io", "u", "p"),
        Auth("both.example.com", "a", "b"),
        Auth("local:5000", "_json_key", "{}"),
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"auths": []}', "[" * 100_000])
def test_anything_else_has_none(text: str) -> None:
    assert parse(text) == ()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("https://user@Registry.example.com:5000/v2/", "registry.example.com:5000"),
        ("gcr.io/project", "gcr.io"),
        ("http://[", "http://["),
    ],
)
def test_host_of_an_address(address: str, host: str) -> None:
    assert registry_host(address) == host


def test_the_first_that_fits_is_found() -> None:
    auths = (Auth("a", "1", "x"), Auth("docker.io", "2", "y"), Auth("a", "3", "z"))
    assert find(auths, "a") == auths[0]
    assert find(auths, "index.docker.io") == auths[1]
    assert find(auths, "b") is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert isinstance(parse(text), tuple)
