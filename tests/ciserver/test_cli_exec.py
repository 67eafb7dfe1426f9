"""`ci exec`: what it makes of its options, and real runs."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.options import Options
from ciserver.cli.exec import host_variables, logins, machinery, proxies, seconds, variables
from ciserver.cli.localrun import chosen, in_place
from ciserver.cli.terminal import Refused
from pipeline.compile import compile_stage
from pipeline.facts import BuildFacts, Facts, RepoFacts
from pipeline.spec import Auth, StageSpec
from tests.images import busybox_image

ROOT = Path(__file__).parents[2]
GRAPH = """
kind: pipeline
name: default
workspace: {base: /go, path: src/app}
services: [{name: db, image: i}]
steps:
- {name: a, image: i}
- {name: b, image: i}
- {name: c, image: i}
"""


def spec() -> StageSpec:
    facts = Facts(RepoFacts("o/r"), BuildFacts())
    return compile_stage(GRAPH, file=".drone.yml", facts=facts, environ={}).spec


def steps(found: StageSpec) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(step.number, step.name, step.depends_on) for step in found.steps]


def test_the_clone_is_left_out_unless_wanted() -> None:
    assert steps(chosen(spec(), [], [], "", clone=False)) == [
        (1, "db", ()), (2, "a", ("db",)), (3, "b", ("a",)), (4, "c", ("b",)),
    ]  # fmt: skip
    assert steps(chosen(spec(), [], [], "", clone=True)) == steps(spec())


@pytest.mark.parametrize(
    ("include", "exclude", "resume_at", "names"),
    [
        (["b"], [], "", ["db", "b"]),
        (["a", "c"], ["db"], "", ["a", "c"]),
        ([], ["b"], "", ["db", "a", "c"]),
        ([], [], "b", ["db", "b", "c"]),
    ],
)
def test_steps_are_chosen(
    include: list[str], exclude: list[str], resume_at: str, names: list[str]
) -> None:
    found = chosen(spec(), include, exclude, resume_at, clone=False)
    assert [step.name for step in found.steps] == names
    assert found.steps[-1].depends_on == (names[-2],)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(Refused, match=r"no step x .* clone, db, a, b, c"):
        chosen(spec(), ["x"], [], "", clone=False)


def test_the_folder_is_the_whole_workspace() -> None:
    space = in_place(spec()).workspace
    assert (space.base, space.path, space.working_dir) == ("/go/src/app", "", "/go/src/app")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("45", 45), ("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m5s", 5405)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1d", "-1", "1m1h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(Refused):
        seconds(text)


def test_variables_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        "# comment\n\nA=1\nexport B = two words # note\n"
        'C="q # \\"x\\"\\n" # note\nD=\'raw \\n\'\nE=\nF=a#b\n'
    )
    assert variables(str(path)) == {
        "A": "1", "B": "two words", "C": 'q # "x"\n', "D": "raw \\n", "E": "", "F": "a#b",
    }  # fmt: skip


def test_a_file_without_variables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("A=1\nnothing here\n")
    with pytest.raises(Refused, match=":2: expected NAME=VALUE"):
        variables(str(path))
    with pytest.raises(Refused, match="cannot read"):
        variables(str(tmp_path / "none"))


def test_credentials_of_the_shell_stay_there() -> None:
    shell = {"DRONE_TOKEN": "x", "DRONE_RPC_SECRET": "x", "DRONE_FOO": "1", "PATH": "/bin"}
    assert host_variables(shell) == {"DRONE_FOO": "1"}


def test_proxies_of_the_shell_are_the_steps_too() -> None:
    shell = {"HTTP_PROXY": "http://p:1", "no_proxy": "x", "https_proxy": "", "DRONE_FOO": "1"}
    assert proxies(shell) == {
        "http_proxy": "http://p:1", "HTTP_PROXY": "http://p:1", "no_proxy": "x", "NO_PROXY": "x",
    }  # fmt: skip


def test_the_engine_is_the_one_of_the_shell() -> None:
    shell = {
        "DOCKER_HOST": "tcp://x:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs",
    }  # fmt: skip
    found = machinery(shell, ["net"], ["a/b"])
    assert (found.docker_host, found.docker_cert_path) == ("tcp://x:2376", "/certs")
    assert found.docker_tls_verify
    assert (found.networks, found.plugin_privileged) == (("net",), ("a/b",))
    assert machinery({}, [], []) == Options()


def test_logins_of_registries(tmp_path: Path) -> None:
    assert logins("https://me:p%40ss@reg.example.com:5000/v2/") == (
        Auth("reg.example.com:5000", "me", "p@ss"),
    )
    path = tmp_path / "config.json"
    packed = base64.b64encode(b"u:p").decode()
    path.write_text(json.dumps({"auths": {"docker.io": {"auth": packed}}}))
    assert logins(str(path)) == (Auth("docker.io", "u", "p"),)
    with pytest.raises(Refused):
        logins("https://reg.example.com")


# --- real runs ---

Ci = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    place = tmp_path / "work"
    place.mkdir()
    who = ["-c", "user.name=Octo Cat", "-c", "user.email=octo@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", "."], cwd=place, check=True)
    (place / "README").write_text("hello\n")
    subprocess.run(["git", "add", "."], cwd=place, check=True)
    subprocess.run(["git", *who, "commit", "-q", "-m", "First"], cwd=place, check=True)
    return place


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ciserver.cli", "exec", *words]


def environ(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder.parent)} | more


@pytest.fixture
def ci(folder: Path) -> Ci:
    """`ci exec` in the folder."""

    def run(text: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        (folder / ".drone.yml").write_text(text)
        return subprocess.run(
            command(*words),
            cwd=folder,
            env=environ(folder, **more),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


EXEC = """
kind: pipeline
type: exec
name: default
steps:
- name: build
  environment: {TOKEN: {from_secret: token}}
  commands:
  - pwd
  - echo token $TOKEN
  - echo made > made.txt
  - echo ${DRONE_FOO} $DRONE_FOO $EXTRA
- {name: deploy, commands: [echo deploying], when: {event: push}}
- {name: fail, commands: [exit 3]}
- {name: tell, commands: ["echo $DRONE_FAILED_STEPS"], when: {status: [failure]}}
"""


@pytest.mark.service
def test_exec_steps_run_in_the_folder(ci: Ci, folder: Path) -> None:
    (folder / "secrets").write_text("token=hush-hush\n")
    (folder / "env").write_text("EXTRA=more\n")
    done = ci(EXEC, "--secret-file", "secrets", "--env-file", "env", DRONE_FOO="bar")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("[deploy] left out: event")
    assert lines == [
        "[build] + pwd",
        f"[build] {folder}",
        "[build] + echo token $TOKEN",
        "[build] token ******",
        "[build] + echo made > made.txt",
        "[build] + echo bar $DRONE_FOO $EXTRA",
        "[build] bar bar more",
        "[fail] + exit 3",
        "[tell] + echo $DRONE_FAILED_STEPS",
        "[tell] fail",
        "[build] success",
        "[fail] failure (exit code 3)",
        "[tell] success",
    ]
    assert (done.returncode, done.stderr) == (1, "")
    assert (folder / "made.txt").read_text() == "made\n"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.service
def test_steps_are_resumed_and_events_given(ci: Ci, folder: Path) -> None:
    done = ci(EXEC, "--event", "push", "--resume-at", "deploy", "--exclude", "fail")
    assert done.stdout.splitlines() == [
        "[deploy] + echo deploying",
        "[deploy] deploying",
        "[deploy] success",
        "[tell] skipped",
    ]
    assert done.returncode == 0
    assert not (folder / "made.txt").exists()


@pytest.mark.service
def test_a_clone_leaves_the_folder_alone(ci: Ci, folder: Path) -> None:
    done = ci(EXEC, "--clone", "--include", "build")
    assert done.returncode == 0, done.stdout
    assert "[clone] success" in done.stdout
    assert not (folder / "made.txt").exists()


@pytest.mark.service
def test_a_stage_ends_at_its_limit(ci: Ci) -> None:
    text = "kind: pipeline\ntype: exec\nsteps: [{name: s, commands: [sleep 1000]}]\n"
    done = ci(text, "--timeout", "1s")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "[s] + sleep 1000",
        "[s] killed (exit code 137)",
        "error: the stage ran longer than its limit of 1 s",
    ]


@pytest.mark.service
def test_an_interrupt_cancels(folder: Path) -> None:
    text = "kind: pipeline\ntype: exec\nsteps: [{name: s, commands: [echo ready, sleep 1000]}]\n"
    (folder / ".drone.yml").write_text(text)
    process = subprocess.Popen(
        command(), cwd=folder, env=environ(folder), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        while "[s] ready" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 1
    assert "[s] killed" in rest
    assert list(folder.parent.iterdir()) == [folder]


DOCKER = """
kind: pipeline
name: other
steps: [{name: x, image: nope}]
---
kind: pipeline
name: default
workspace: {base: /go, path: src/app}
volumes: [{name: cache, temp: {}}]
services: [{name: web, image: IMAGE, pull: never, commands: [sleep 1000]}]
steps:
- name: build
  image: IMAGE
  pull: never
  volumes: [{name: cache, path: /cache}]
  commands: [pwd, cat README, "echo 1 > /cache/a", "echo x > from-container"]
- {name: plugin, image: IMAGE, pull: never, settings: {user-name: x, tags: [a, b]}, command: [env]}
- name: use
  image: IMAGE
  pull: never
  volumes: [{name: cache, path: /cache}]
  commands: [cat /cache/a, cat /given/README]
"""


@pytest.mark.service
@pytest.mark.xdist_group("docker")
def test_docker_steps_run_on_the_folder(ci: Ci, folder: Path, docker_address: str) -> None:
    text = DOCKER.replace("IMAGE", busybox_image())
    done = ci(text, "--volume", f"{folder}:/given", "--trusted")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"[build] /go/src/app", "[build] hello", "[use] 1", "[use] hello"} <= set(lines)
    assert {"[plugin] PLUGIN_USER-NAME=x", "[plugin] PLUGIN_TAGS=a,b"} <= set(lines)
    assert (folder / "from-container").read_text() == "x\n"


OPTIONS = """
kind: pipeline
name: default
steps:
- name: look
  image: IMAGE
  pull: never
  commands:
  - ls /sys/class/net | grep -c eth
  - cat ~/.netrc
  - touch /given/x || echo "$FOO for $DRONE_REPO on $DRONE_BRANCH at $DRONE_COMMIT_REF"
  - echo "$DRONE_DEPLOY_TO $DRONE_COMMIT_SHA ${LEVEL} log1n-of-h"
  - test "$DRONE_BUILD_STARTED" -gt 1700000000
  when: {event: promote, target: prod, instance: ci.example.com, repo: o/*}
"""


@pytest.mark.service
@pytest.mark.xdist_group("docker")
def test_docker_steps_get_what_options_say(ci: Ci, folder: Path, docker_address: str) -> None:
    (folder / "env").write_text("FOO=more\n")
    words = (
        "--event promote --deploy-to prod --instance ci.example.com --repo o/r --branch dev --clone"
        f" --network bridge --env-file env --volume {folder}:/given:ro --param LEVEL=3 --trusted"
        " --netrc-machine git.example.com --netrc-username octo --netrc-password hush-hush"
        " --registry https://u:log1n-of-h@r.example.com --timeout 0"
    )
    done = ci(OPTIONS.replace("IMAGE", busybox_image()), *words.split())
    lines = [line.removeprefix("[look] ") for line in done.stdout.splitlines()]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert {
        "2",
        "machine git.example.com login octo password ******",
        "more for o/r on dev at refs/heads/dev",
        f"prod {commit} 3 ******",
        "success",
    } <= set(lines)
    assert "[clone] success" in lines


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (EXEC, ("--pipeline", "zz"), "there is no pipeline zz; there are: default"),
        (EXEC.replace("exec", "ssh"), (), "pipelines of type ssh cannot run here"),
        (EXEC, ("--volume", "x"), "expected HOST:PATH"),
        (EXEC, ("none.yml",), "none.yml: No such file"),
    ],
)
@pytest.mark.service
def test_what_cannot_run_is_refused(
    text: str, words: tuple[str, ...], sentence: str, ci: Ci
) -> None:
    done = ci(text, *words)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.service
def test_pipelines_that_cannot_run_here_do_not_disturb(ci: Ci) -> None:
    others = "kind: pipeline\ntype: ssh\nname: {}\nserver: {{host: x}}\n---\n"
    text = others.format("far") + EXEC.replace("name: default", "name: near")
    done = ci(text, "--include", "tell")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[tell] skipped" in done.stdout


@pytest.mark.service
def test_a_file_in_error_says_where(ci: Ci) -> None:
    done = ci(EXEC.replace("echo made", "echo ${!x}"))
    assert done.returncode == 1
    assert done.stderr.startswith(".drone.yml:11:10: error: bad substitution")
