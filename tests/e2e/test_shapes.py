"""Pipelines of different shapes, run by a real server and its agent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import Cluster, cluster
from tests.images import busybox_image, plugin_image
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(400), pytest.mark.xdist_group("docker")]

Statuses = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Shape:
    """A file, how its build ends, the steps' statuses by stage, and lines of logs."""

    name: str
    text: str
    status: str
    steps: Statuses
    lines: tuple[tuple[int, int, str], ...] = ()


def shape_id(shape: Shape) -> str:
    """What a test is called."""
    return shape.name


HEAD = "kind: pipeline\ntype: {}\nname: {}\nclone: {{disable: true}}\n"
EXEC = HEAD.format("exec", "one")
DOCKER = HEAD.format("docker", "one")
BOX = "image: IMAGE, pull: never"

SHAPES = (
    Shape(
        "exec-graph",
        EXEC + "steps:\n"
        "- {name: a, commands: [echo a]}\n"
        "- {name: b, commands: [echo b], depends_on: [a]}\n"
        "- {name: c, commands: [echo c], depends_on: [a]}\n"
        "- {name: d, commands: [echo joined], depends_on: [b, c]}\n",
        "success",
        {"one": dict.fromkeys("abcd", "success")},
        ((1, 4, "joined"),),
    ),
    Shape(
        "exec-failure-and-always",
        EXEC + "steps:\n"
        "- {name: fail, commands: [exit 3]}\n"
        "- {name: never, commands: [echo never]}\n"
        "- {name: mend, commands: [echo $DRONE_FAILED_STEPS], when: {status: [failure]}}\n"
        "- {name: always, commands: [echo bye], when: {status: [success, failure]}}\n",
        "failure",
        {"one": {"fail": "failure", "never": "skipped", "mend": "success", "always": "success"}},
        ((1, 3, "fail"), (1, 4, "bye")),
    ),
    Shape(
        "exec-ignored-failure",
        EXEC + "steps:\n"
        "- {name: lint, commands: [exit 1], failure: ignore}\n"
        "- {name: next, commands: [echo on]}\n",
        "success",
        {"one": {"lint": "failure", "next": "success"}},
    ),
    Shape(
        "exec-early-end",
        EXEC + "steps:\n"
        "- {name: enough, commands: [exit 78]}\n"
        "- {name: rest, commands: [echo rest]}\n",
        "success",
        {"one": {"enough": "success", "rest": "skipped"}},
    ),
    Shape(
        "exec-matrix",
        EXEC + "matrix: {COLOUR: [red, blue]}\nsteps:\n"
        "- {name: say, commands: ['echo ${COLOUR}']}\n",
        "success",
        {"one (COLOUR=red)": {"say": "success"}, "one (COLOUR=blue)": {"say": "success"}},
        ((1, 1, "red"), (2, 1, "blue")),
    ),
    Shape(
        "exec-step-timed-out",
        EXEC + "steps:\n- {name: slow, commands: [sleep 600], timeout: 1s}\n",
        "failure",
        {"one": {"slow": "failure"}},
    ),
    Shape(
        "exec-retried",
        EXEC + "steps:\n"
        "- {name: flaky, retry: 2, commands: ["
        "'test -e seen || { touch seen; exit 1; }', echo ok]}\n"
        "- {name: slow, timeout: 1s, retry: {count: 1, backoff: 1s}, commands: ["
        "'test -e slow || { touch slow; sleep 600; }', echo in time]}\n"
        "- {name: broken, retry: {count: 5, on: [error]}, commands: [exit 1]}\n",
        "failure",
        {"one": {"flaky": "success", "slow": "success", "broken": "failure"}},
        ((1, 1, "ok"), (1, 2, "in time")),
    ),
    Shape(
        "exec-conditions-as-lists",
        EXEC + "trigger:\n- {event: tag}\n- {event: {exclude: [tag]}}\nsteps:\n"
        "- {name: never, commands: [echo no], when: [{event: tag}, {branch: nowhere}]}\n"
        "- name: one\n  commands: echo one text\n  when: [{event: tag}, {branch: ['*', '**']}]\n",
        "success",
        {"one": {"one": "success"}},
        ((1, 1, "one text"),),
    ),
    Shape(
        "exec-stage-timed-out",
        EXEC + "timeout: 10s\nsteps:\n"
        "- {name: slow, commands: [sleep 600]}\n"
        "- {name: always, commands: [echo never], when: {status: [success, failure]}}\n---\n"
        f"{HEAD.format('exec', 'tell')}depends_on: [one]\ntrigger: {{status: [failure]}}\n"
        "steps: [{name: said, commands: [echo told]}]\n",
        "killed",
        {"one": {"slow": "killed", "always": "skipped"}, "tell": {"said": "success"}},
        ((2, 1, "told"),),
    ),
    Shape(
        "fan-in",
        EXEC + "steps: [{name: a, commands: [echo a]}]\n---\n"
        f"{HEAD.format('docker', 'two')}steps: [{{name: b, {BOX}, commands: [echo b]}}]\n---\n"
        f"{HEAD.format('exec', 'join')}depends_on: [one, two]\n"
        "steps: [{name: c, commands: [echo joined]}]\n",
        "success",
        {"one": {"a": "success"}, "two": {"b": "success"}, "join": {"c": "success"}},
        ((2, 1, "b"), (3, 1, "joined")),
    ),
    Shape(
        "fan-in-after-a-failure",
        EXEC + "steps: [{name: a, commands: [exit 1]}]\n---\n"
        f"{HEAD.format('exec', 'two')}steps: [{{name: b, commands: [echo b]}}]\n---\n"
        f"{HEAD.format('exec', 'ship')}depends_on: [one, two]\n"
        "steps: [{name: c, commands: [echo never]}]\n---\n"
        f"{HEAD.format('exec', 'tell')}depends_on: [one, two]\ntrigger: {{status: [failure]}}\n"
        "steps: [{name: d, commands: [echo told]}]\n",
        "failure",
        {
            "one": {"a": "failure"},
            "two": {"b": "success"},
            "ship": {},
            "tell": {"d": "success"},
        },
        ((4, 1, "told"),),
    ),
    Shape(
        "docker-service",
        DOCKER + f"services: [{{name: data, {BOX}, commands: ["
        "while true; do echo pong | nc -l -p 9000; done]}]\n"
        "steps:\n"
        f"- name: ask\n  image: IMAGE\n  pull: never\n  commands:\n"
        "  - until nc data 9000 < /dev/null | grep pong; do sleep 0.1; done\n",
        "success",
        {"one": {"data": "success", "ask": "success"}},
        ((1, 2, "pong"),),
    ),
    Shape(
        "docker-plugin-and-volume",
        DOCKER + "volumes: [{name: cache, temp: {}}]\nsteps:\n"
        f"- {{name: plugin, {BOX}, settings: {{tags: [a, b]}}, command: [env]}}\n"
        f"- {{name: put, {BOX}, volumes: [{{name: cache, path: /c}}],"
        " commands: [echo kept > /c/x]}\n"
        f"- {{name: get, {BOX}, volumes: [{{name: cache, path: /d}}], commands: [cat /d/x]}}\n",
        "success",
        {"one": {"plugin": "success", "put": "success", "get": "success"}},
        ((1, 1, "PLUGIN_TAGS=a,b"), (1, 3, "kept")),
    ),
    Shape(
        "docker-plugin-with-a-program-of-its-own",
        DOCKER + "steps:\n- name: greet\n  image: PLUGIN\n  pull: never\n"
        "  settings: {greeting: hello, names: [a, 3, yes], map: {k: 1.10}}\n",
        "success",
        {"one": {"greet": "success"}},
        ((1, 1, 'hello, a,3,true: {"k":1.1}'),),
    ),
    Shape(
        "docker-graph",
        DOCKER + "steps:\n"
        f"- {{name: a, {BOX}, commands: [echo a > a]}}\n"
        f"- {{name: b, {BOX}, commands: [cp a b], depends_on: [a]}}\n"
        f"- {{name: c, {BOX}, commands: [cp a c], depends_on: [a]}}\n"
        f"- {{name: d, {BOX}, commands: [cat b c], depends_on: [b, c]}}\n",
        "success",
        {"one": dict.fromkeys("abcd", "success")},
        ((1, 4, "a"),),
    ),
    Shape(
        "docker-clone",
        "kind: pipeline\nname: one\nsteps:\n"
        f"- {{name: read, {BOX}, commands: [cat hello.txt, echo made > made.txt]}}\n"
        f"- {{name: use, {BOX}, commands: [cat made.txt]}}\n",
        "success",
        {"one": {"clone": "success", "read": "success", "use": "success"}},
        ((1, 2, "hello from git"), (1, 3, "made")),
    ),
    Shape(
        "docker-failure-and-always",
        DOCKER + "steps:\n"
        f"- {{name: fail, {BOX}, commands: [exit 4]}}\n"
        f"- {{name: never, {BOX}, commands: [echo never]}}\n"
        f"- {{name: always, {BOX}, commands: [echo bye], when: {{status: [success, failure]}}}}\n",
        "failure",
        {"one": {"fail": "failure", "never": "skipped", "always": "success"}},
        ((1, 3, "bye"),),
    ),
    Shape(
        "docker-fast-failure",
        DOCKER + "steps:\n"
        f"- {{name: start, {BOX}, commands: ['true']}}\n"
        f"- {{name: fail, {BOX}, failure: fast, depends_on: [start],"
        " commands: ['while [ ! -e runs ]; do sleep 0.1; done', exit 1]}\n"
        f"- {{name: slow, {BOX}, depends_on: [start], commands: [touch runs, sleep 600]}}\n",
        "failure",
        {"one": {"start": "success", "fail": "failure", "slow": "killed"}},
    ),
    Shape(
        "docker-retried",
        DOCKER + "steps:\n"
        f"- {{name: flaky, {BOX}, retry: {{count: 2, on: failure}},"
        " commands: ['test -e seen || { touch seen; exit 1; }', echo passed]}\n",
        "success",
        {"one": {"flaky": "success"}},
        ((1, 1, "passed"),),
    ),
    Shape(
        "docker-stage-timed-out",
        DOCKER + f"timeout: 20s\nservices: [{{name: data, {BOX}, commands: [sleep 600]}}]\n"
        f"steps:\n- {{name: slow, {BOX}, commands: [sleep 600]}}\n"
        f"- {{name: always, {BOX}, commands: [echo never],"
        " when: {status: [success, failure]}}\n",
        "killed",
        {"one": {"data": "success", "slow": "killed", "always": "skipped"}},
    ),
    Shape(
        "docker-missing-image",
        DOCKER + "steps:\n- {name: x, image: 'ciserver-test/nothing:1', pull: never,"
        " commands: [echo never]}\n",
        "error",
        {"one": {"x": "error"}},
    ),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server and an agent that runs both types."""
    busybox_image()
    with cluster() as built:
        agent = built.agent(isolation="auto")
        yield built
        agent.signal(signal.SIGTERM)
        assert agent.process is not None
        agent.process.wait(timeout=60)


def steps(build: dict[str, Any]) -> Statuses:
    """The statuses of the build's steps by the names of stages."""
    return {
        stage["name"]: {one["name"]: one["status"] for one in stage.get("steps") or ()}
        for stage in build["stages"]
    }


def repo(server: Cluster, name: str, text: str) -> str:
    """A repo with this pipeline; IMAGE stands for the local image."""
    files = {"hello.txt": "hello from git\n"}
    text = text.replace("IMAGE", busybox_image()).replace("PLUGIN", plugin_image())
    return server.repo(text, name, files)


@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_a_shape_runs_as_it_says(server: Cluster, shape: Shape) -> None:
    slug = repo(server, shape.name, shape.text)
    number = server.build(slug)

    ended = server.ended(slug, number)

    assert (ended["status"], steps(ended)) == (shape.status, shape.steps)
    for stage, step, line in shape.lines:
        wait_for(line, lambda at=(stage, step), line=line: line in server.log(slug, number, *at))


@pytest.mark.parametrize("kind", ["exec", "docker"])
def test_a_cancelled_build_is_killed(server: Cluster, kind: str) -> None:
    image = f", {BOX}" if kind == "docker" else ""
    text = (
        HEAD.format(kind, "one") + f"steps:\n- {{name: slow{image}, commands:"
        f" [echo ready, sleep 600]}}\n- {{name: next{image}, commands: [echo never]}}\n"
    )
    slug = repo(server, f"{kind}-cancelled", text)
    number = server.build(slug)
    server.wait_line(slug, number, "ready")

    server.client.call("DELETE", f"/api/repos/{slug}/builds/{number}")

    ended = server.ended(slug, number)
    assert (ended["status"], steps(ended)) == (
        "killed",
        {"one": {"slow": "killed", "next": "skipped"}},
    )
