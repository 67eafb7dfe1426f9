"""Secrets of every kind in real steps: there, hidden, and nowhere else."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.cluster import Cluster, cluster
from tests.images import busybox_image
from tests.services import free_port, listens, program, running, wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(400), pytest.mark.xdist_group("docker")]

KINDS = ("repo", "org", "file", "agent", "store")


class Store:
    """An extension that keeps one secret."""

    def __init__(self, value: str) -> None:
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(question)
                found = (question["path"], question["name"]) == ("kv/ci", "token")
                answer = json.dumps({"data": value}).encode() if found else b""
                self.send_response(200 if found else 204)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@dataclass(frozen=True)
class House:
    """A server with an agent, the secrets by their kind, and the store."""

    cluster: Cluster
    values: dict[str, str]
    store: Store


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    values = {kind: f"{kind}-{secrets.token_hex(12)}" for kind in KINDS}
    store = Store(values["store"])
    busybox_image()
    with cluster() as built:
        agent = built.agent(
            isolation="auto",
            secrets=f"agent={values['agent']}",
            secret_plugin_endpoint=store.url,
            secret_plugin_token="x" * 32,
        )
        yield House(built, values, store)
        agent.signal(signal.SIGTERM)
        assert agent.process is not None
        agent.process.wait(timeout=60)
    store.server.shutdown()
    store.server.server_close()


STEPS = """\
kind: pipeline
type: TYPE
name: default
clone: {disable: true}
steps:
- name: use
  IMAGE
  environment: {REPO: {from_secret: Repo}, ORG: {from_secret: org}, NONE: {from_secret: none}}
  settings: {file: {from_secret: file}, agent: {from_secret: agent}, store: {from_secret: store}}
  commands:
  - echo $${#REPO} $${#ORG} $${#PLUGIN_FILE} $${#PLUGIN_AGENT} $${#PLUGIN_STORE} $${NONE-unset}.
  - echo "$REPO|$ORG|$PLUGIN_FILE|$PLUGIN_AGENT|$PLUGIN_STORE"
  - printf %s "x$REPO" | base64
- name: hold
  IMAGE
  commands: [echo ready, sleep 600]
---
kind: secret
name: store
get: {path: kv/ci, name: token}
---
kind: secret
name: file
data: DATA
"""


def secret(house: House, path: str, name: str, value: str) -> None:
    house.cluster.client.call("POST", path, json={"name": name, "data": value})


def repo(house: House, kind: str) -> str:
    """A repo whose pipeline uses a secret of each kind. Its key is known once it is registered."""
    built, values = house.cluster, house.values
    image = f"image: {busybox_image()}\n  pull: never" if kind == "docker" else "depends_on: []"
    text = STEPS.replace("TYPE", kind).replace("  IMAGE", f"  {image}")
    slug = built.repo("kind: pipeline\n", f"secrets-{kind}")
    data = built.client.call("POST", f"/api/repos/{slug}/encrypt", json={"data": values["file"]})
    folder = built.folder / "repos" / f"secrets-{kind}"
    (folder / ".drone.yml").write_text(text.replace("DATA", data["data"]))
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    commit = ("commit", "--quiet", "--all", "--message=Use them")
    subprocess.run(["git", "-C", str(folder), *identity, *commit], check=True)
    secret(house, f"/api/repos/{slug}/secrets", "REPO", values["repo"])
    return slug


def holders(folder: Path, values: dict[str, str]) -> list[str]:
    """Files below a folder that hold one of the values."""
    wanted = [value.encode() for value in values.values()]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path)] if any(value in content for value in wanted) else []
    return found


def arguments() -> Iterator[bytes]:
    """The command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


@pytest.mark.parametrize("kind", ["exec", "docker"])
def test_a_secret_is_in_its_step_and_nowhere_else(house: House, kind: str) -> None:
    built, values = house.cluster, house.values
    slug = repo(house, kind)
    namespace = slug.partition("/")[0]
    if kind == "exec":
        secret(house, f"/api/secrets/{namespace}", "org", values["org"])
    number = built.build(slug)
    built.wait_line(slug, number, "ready", step=2)

    lengths = " ".join(str(len(values[kind])) for kind in KINDS)

    def lines() -> list[str]:
        return [line for line in built.log(slug, number) if not line.startswith("+ ")]

    wait_for("the lines of the first step", lambda: len(lines()) > 2)
    assert lines()[:2] == [f"{lengths} .", "|".join(["******"] * 5)]
    assert lines()[2].startswith("eH") and "******" in lines()[2]

    assert not [line for line in arguments() if any(v.encode() in line for v in values.values())]
    built.client.call("DELETE", f"/api/repos/{slug}/builds/{number}")
    built.ended(slug, number)
    assert holders(built.folder, values) == []
    (question,) = [one for one in house.store.asked if one["repo"]["slug"] == slug]
    assert (question["path"], question["name"]) == ("kv/ci", "token")
    assert question["build"]["number"] == number


HASH = "robot:$2b$04$oxrJv1SSEx2ZaOIDGyN5O.thJHpI.ZW3RRZIcEGArOdVcnspjYzHq\n"
PASSWORD = "t0p-s3cret"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry that wants a login and holds the image `private/box:1`."""
    port = free_port()
    (tmp_path / "htpasswd").write_text(HASH)
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "images")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    argv = [program("docker-registry"), "serve", str(tmp_path / "config.yml")]
    client = docker.APIClient(version="auto", timeout=120)
    image = f"127.0.0.1:{port}/private/box"
    with running(argv, tmp_path / "log"):
        wait_for("the registry listens", lambda: listens(port))
        client.tag(busybox_image(), image, "1")
        login = {"username": "robot", "password": PASSWORD}
        told = client.push(image, "1", auth_config=login, stream=True, decode=True)
        assert not [line for line in told if "error" in line]
        client.remove_image(f"{image}:1")
        yield f"127.0.0.1:{port}"
        client.remove_image(f"{image}:1", force=True)
    client.close()


PRIVATE = """\
kind: pipeline
name: default
clone: {disable: true}
image_pull_secrets: [other, login]
steps:
- {name: use, image: 'HOST/private/box:1', commands: [echo t0p-s3cret]}
"""


def test_a_private_image_is_pulled_with_the_secrets_login(house: House, registry: str) -> None:
    built = house.cluster
    slug = built.repo(PRIVATE.replace("HOST", registry), "private")
    refused = built.ended(slug, built.build(slug))
    (step,) = refused["stages"][0]["steps"]
    assert (refused["status"], step["status"]) == ("error", "error")

    packed = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
    text = json.dumps({"auths": {f"https://{registry}/v2/": {"auth": packed}}})
    secret(house, f"/api/repos/{slug}/secrets", "login", text)
    number = built.build(slug)
    assert built.ended(slug, number)["status"] == "success"
    wait_for("the log", lambda: "******" in built.log(slug, number))
    assert PASSWORD not in "\n".join(built.log(slug, number))
