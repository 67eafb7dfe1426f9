"""Shells in failed steps, with real processes: work, ends, and what may go wrong meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ciserver.cli.client import Access
from tests.cluster import Cluster, Part
from tests.images import BUSYBOX, busybox_image
from tests.services import DEADLINE_S, free_port, wait_for
from tests.viewer import Viewer

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

PIPELINE = """
kind: pipeline
type: exec
name: default
clone: {disable: true}
steps:
- name: test
  environment: {COLOUR: blau-grün}
  commands:
  - echo data > file
  - exit 4
- name: after
  commands: [echo never]
"""


def failed(
    server: Cluster, pipeline: str = PIPELINE, name: str = "project"
) -> tuple[str, int, Any]:
    """A build in debug whose step has failed and is kept: slug, number and hold."""
    slug = server.repo(pipeline, name)
    made = server.client.call("POST", f"/api/repos/{slug}/builds", params={"debug": "true"})
    number = int(made["number"])
    wait_for("the step is kept", lambda: bool(holds(server, slug, number)))
    return slug, number, holds(server, slug, number)[0]


def holds(server: Cluster, slug: str, number: int) -> Any:
    return server.client.call("GET", f"/api/repos/{slug}/builds/{number}/debug")


@contextlib.contextmanager
def sitting(server: Cluster, pipeline: str = PIPELINE) -> Iterator[tuple[str, int, Viewer]]:
    """At the shell of a step that has failed: slug and number of the build, and the viewer."""
    slug, number, hold = failed(server, pipeline)
    with Viewer(server.client.access, hold["id"]) as viewer:
        viewer.until_word("attached")
        yield slug, number, viewer


def test_one_works_in_the_place_of_the_failure(server: Cluster) -> None:
    server.agent()
    slug, number, hold = failed(server)

    assert (hold["stage"], hold["step"], hold["name"], hold["exit_code"]) == (1, 1, "test", 4)
    build = server.client.build(slug, number)
    assert build["stages"][0]["steps"][0]["debug_until"] == pytest.approx(hold["expires"], abs=60)
    assert any("kept for debugging" in line for line in server.log(slug, number))
    with Viewer(server.client.access, hold["id"]) as viewer:
        viewer.until_word("attached")
        viewer.type("cat file; echo $COLOUR $DRONE_STEP_NAME; stty size\n")
        viewer.until("data")
        viewer.until("blau-grün test")
        viewer.until("24 80")
        viewer.say("resize", cols=100, rows=30)
        viewer.type("stty size\n")
        viewer.until("30 100")
        assert holds(server, slug, number)[0]["user"] == "admin"
        viewer.type("exit 3\n")
        ended = viewer.until_word("ended")
        assert (ended["code"], ended["text"]) == (3, "the shell was left")
        assert viewer.until_closed()[0] == 1000

    build = server.ended(slug, number)
    assert build["status"] == "failure"
    assert [step["status"] for step in build["stages"][0]["steps"]] == ["failure", "skipped"]
    assert build["stages"][0]["steps"][0]["exit_code"] == 4
    assert holds(server, slug, number) == []


def test_a_flood_stays_where_it_is(server: Cluster) -> None:
    server.agent()
    _, _, hold = failed(server)
    with Viewer(server.client.access, hold["id"], lazy=True) as viewer:
        viewer.until_word("attached")
        viewer.type("yes\n")
        wait_for("a window full", lambda: not viewer.read(5) and viewer.received > 60_000)
        assert viewer.received <= 128 * 1024

        viewer.lazy = False
        viewer.say("took", bytes=viewer.received)
        seen = viewer.received
        wait_for("more", lambda: viewer.read(5) and viewer.received > seen + 500_000)
        viewer.type("\x03")
        viewer.type("echo stop$((1+1))\n")
        viewer.until("stop2")


def test_one_may_leave_and_come_back_and_be_followed(server: Cluster) -> None:
    server.agent()
    _, _, hold = failed(server)
    with Viewer(server.client.access, hold["id"]) as first:
        first.until_word("attached")
        first.type("HERE=still; echo first$((1+1))\n")
        first.until("first2")
    with Viewer(server.client.access, hold["id"]) as second:
        second.until("first2")
        second.type("echo $HERE$((2+2))\n")
        second.until("still4")
        with Viewer(server.client.access, hold["id"]) as third:
            third.until("still4")
            code, why = second.until_closed()
            assert code == 4409
            assert "opened elsewhere by admin" in why


def test_the_last_press_of_a_button_ends_it(server: Cluster) -> None:
    server.agent()
    with sitting(server) as (slug, number, viewer):
        server.client.call("DELETE", f"/api/repos/{slug}/builds/{number}/debug/1/1")

        assert viewer.until_word("ended")["text"] == "somebody ended it"
    assert server.ended(slug, number)["status"] == "failure"


def test_a_cancel_ends_it(server: Cluster) -> None:
    server.agent()
    with sitting(server) as (slug, number, viewer):
        viewer.type("sleep 1000\n")

        server.client.cancel(slug, number)

        assert viewer.until_closed()[0] == 1000
    assert server.ended(slug, number)["status"] == "killed"


def test_it_ends_when_nobody_types(server: Cluster) -> None:
    server.agent(debug_limit="3s")
    slug = server.repo(PIPELINE)
    made = server.client.call("POST", f"/api/repos/{slug}/builds", params={"debug": "true"})

    build = server.ended(slug, made["number"])

    assert build["status"] == "failure"
    assert "[ci] debugging ended: its time was over" in server.log(slug, made["number"])


def test_an_agent_that_is_to_stop_keeps_nothing(server: Cluster) -> None:
    agent = server.agent()
    with sitting(server) as (slug, number, viewer):
        viewer.type("trap '' TERM HUP; sleep 1000\n")

        agent.signal(signal.SIGTERM)

        assert viewer.until_word("ended")["text"] == "the agent is stopping"
    assert server.ended(slug, number)["status"] == "failure"
    assert agent.process is not None
    assert agent.process.wait(60) == 0


def test_a_killed_server_comes_back_to_the_same_shell(server: Cluster) -> None:
    server.agent()
    slug, number, hold = failed(server)
    with Viewer(server.client.access, hold["id"]) as viewer:
        viewer.until_word("attached")
        viewer.type("HERE=still; echo mark$((1+1))\n")
        viewer.until("mark2")
        server.web.kill()
        viewer.until_closed()

    server.web.start()
    server.wait_web()
    with Viewer(server.client.access, hold["id"]) as viewer:
        viewer.until("mark2")
        viewer.type("echo $HERE$((2+2)); exit\n")
        viewer.until("still4")
        viewer.until_word("ended")
    assert server.ended(slug, number)["status"] == "failure"


def test_viewer_and_agent_may_be_at_different_processes(server: Cluster) -> None:
    server.agent()
    _, _, hold = failed(server)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.set_inheritable(True)
        other = Part(server.programs.web(listener.fileno()))
        other.start()
        try:
            there = Access(f"http://127.0.0.1:{port}", server.client.access.token)
            with Viewer(there, hold["id"]) as viewer:
                viewer.until_word("attached")
                viewer.type("seq 100000; echo done$((1+1))\n")
                viewer.until("100000\r\ndone2")

                server.redis.kill()
                server.redis.start()

                wait_for("the shell answers again", lambda: answers(viewer))
        finally:
            other.stop()


def answers(viewer: Viewer) -> bool:
    """Whether what is typed now is answered: it is not while another talk begins.

    None begins where nothing got lost.
    """
    viewer.type("echo again$((1+1))\n")
    end = time.monotonic() + 3
    while b"again2" not in viewer.output and time.monotonic() < end:
        viewer.read(0.5)
    return b"again2" in viewer.output


def in_terminal(server: Cluster, *words: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """`ci` with these words on a pseudo terminal: the process, our end and its."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    environ = {
        **os.environ,
        "CISERVER_SERVER": server.client.access.url,
        "CISERVER_TOKEN": server.client.access.token,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ciserver.cli", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    return process, ours, theirs


class Screen:
    """What a program on a pseudo terminal shows."""

    def __init__(self, terminal: int) -> None:
        self.terminal, self.text = terminal, b""
        os.set_blocking(terminal, False)

    def until(self, wanted: str) -> None:
        """Read until it is shown."""
        end = time.monotonic() + DEADLINE_S
        while wanted.encode() not in self.text:
            assert time.monotonic() < end, f"{wanted!r} is not in {self.text!r}"
            self._read()

    def _read(self) -> None:
        select.select([self.terminal], [], [], 0.5)
        with contextlib.suppress(OSError):
            self.text += os.read(self.terminal, 65536)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.terminal, keys.encode())


def test_ci_shell_in_a_terminal(server: Cluster) -> None:
    server.agent()
    slug, number, _ = failed(server)
    process, ours, theirs = in_terminal(server, "shell", f"{slug}#{number}", "default")
    before = termios.tcgetattr(theirs)
    screen = Screen(ours)
    screen.until("Enter ~ . leaves")
    screen.type("stty size; echo mark$((1+1))\r")
    screen.until("mark2")
    screen.until("30 90")
    assert termios.tcgetattr(theirs)[3] & termios.ICANON == 0
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 91, 0, 0))
    os.kill(process.pid, signal.SIGWINCH)  # it is not the terminal's own session
    screen.type('until [ "$(stty size)" = "31 91" ]; do sleep 0.1; done; echo sized$((1+1))\r')
    screen.until("sized2")
    screen.type("\r~.")
    screen.until("left; the step is kept")
    assert process.wait(60) == 0
    assert termios.tcgetattr(theirs) == before

    process, ours, theirs = in_terminal(server, "shell", f"{slug}#{number}")
    screen = Screen(ours)
    screen.until("mark2")
    screen.type("exit 7\r")
    screen.until("the shell was left")
    assert process.wait(60) == 7
    assert termios.tcgetattr(theirs)[3] & termios.ICANON
    assert server.ended(slug, number)["status"] == "failure"

    process, ours, _ = in_terminal(server, "shell", f"{slug}#{number}")
    Screen(ours).until(f"nothing of {slug}#{number} waits for debugging")
    assert process.wait(60) == 2


IN_CONTAINER = f"""
kind: pipeline
type: docker
name: default
clone: {{disable: true}}
steps:
- name: test
  image: {BUSYBOX}
  pull: never
  commands:
  - echo data > /outside
  - exit 4
"""


@pytest.mark.xdist_group("docker")
def test_one_works_in_a_container(server: Cluster) -> None:
    busybox_image()
    server.agent(isolation="docker")
    with sitting(server, IN_CONTAINER) as (slug, number, viewer):
        viewer.type("cat /outside; pwd; stty size\n")
        viewer.until("data")
        viewer.until("/drone/src")
        viewer.until("24 80")
        viewer.type("exit 5\n")
        assert viewer.until_word("ended")["code"] == 5
    assert server.ended(slug, number)["status"] == "failure"
