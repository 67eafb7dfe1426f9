"""`ci exec`: run a pipeline here, without a server.

Source: `drone exec` (reference: pipeline format, section 12), its faults mended: `--timeout` means
what it says, `--resume-at` resumes, any supported type runs, pipelines of others do not disturb.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

import typer

from agents import hooks
from agents.journal import set_up_logging
from agents.options import Options
from ciserver import env
from ciserver.cli.local import fail, modern, pairs
from ciserver.cli.localrun import TYPES, chosen, in_place, run
from ciserver.cli.terminal import Refused, Terminal
from pipeline import auths, conditions, plan, states
from pipeline.compile import Compiled, compile_stage, with_secrets
from pipeline.conditions import NEVER
from pipeline.document import File, Pipeline, find, parse, point_name
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System
from pipeline.spec import CLONE, Auth, Mount, Netrc, StageSpec, Volume

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SUCCESS, FAILED = 0, 1
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_VARIABLE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=(.*)")
_QUOTED = re.compile(r"""(?:"((?:\\.|[^"\\])*)"|'([^']*)')(?:\s+#.*)?""")
_COMMENT = re.compile(r"(?:^|\s+)#")
_HOST_PREFIX: Final = "DRONE_"
#: Credentials of this shell, such as DRONE_TOKEN of Drone's own command, are no business of steps.
_CREDENTIAL = re.compile(r"_(?:TOKEN|SECRET|PASSWORD|KEY)$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run, and with what."""

    file: str
    pipeline: str
    repo: RepoFacts
    build: BuildFacts
    instance: str
    environ: Mapping[str, str]
    host: Mapping[str, str] = field(default_factory=dict)


@app.command("exec")
def exec_command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="-: stdin")] = ".drone.yml",
    pipeline: Annotated[str, typer.Option(help="its name; default: `default`, or the first")] = "",
    include: Annotated[list[str] | None, typer.Option(help="run only this step")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="do not run this step")] = None,
    resume_at: Annotated[str, typer.Option(help="the first step to run")] = "",
    clone: Annotated[bool, typer.Option("--clone", help="clone, do not use the folder")] = False,
    trusted: Annotated[bool, typer.Option("--trusted", help="as in a trusted repository")] = False,
    timeout: Annotated[str, typer.Option(help="such as 90s, 30m or 1h30m")] = "1h",
    volume: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PATH", help="mounted into every step")
    ] = None,
    network: Annotated[list[str] | None, typer.Option(help="also attached to every step")] = None,
    registry: Annotated[
        list[str] | None, typer.Option(help="https://user:password@host, or a Docker config file")
    ] = None,
    secret_file: Annotated[str, typer.Option(help="a file of lines NAME=VALUE")] = "",
    env_file: Annotated[str, typer.Option(help="a file of lines NAME=VALUE")] = "",
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="a parameter of the build")
    ] = None,
    privileged: Annotated[
        list[str] | None, typer.Option(help="plugin images that run privileged")
    ] = None,
    netrc_machine: Annotated[str, typer.Option(help="the host to clone from")] = "",
    netrc_username: Annotated[str, typer.Option()] = "",
    netrc_password: Annotated[str, typer.Option()] = "",
    branch: Annotated[str, typer.Option(help="as conditions see it")] = "",
    event: Annotated[str, typer.Option(help="as conditions see it")] = "",
    instance: Annotated[str, typer.Option(help="as conditions see it")] = "",
    repo: Annotated[str, typer.Option(help="as conditions see it: owner/name")] = "",
    deploy_to: Annotated[str, typer.Option(help="as conditions see it")] = "",
    ref: Annotated[str, typer.Option(help="as conditions see it")] = "",
    sha: Annotated[str, typer.Option(help="the commit; default: that of the folder")] = "",
) -> None:
    """Run a pipeline here, without a server: docker steps in containers, exec steps as processes.

    The folder is the workspace, changed in place, unless --clone is given. `trigger` is not
    looked at, `when` is; what no option says is empty there. Variables DRONE_* of this shell are
    used in the pipeline and its steps, those with credentials excepted.

    Exit code: 0 success, 1 failed or a file in error, 2 could not run.
    """
    host = host_variables(env.child_environ())
    owner, _, name = repo.rpartition("/")
    wanted = Wanted(
        file=file,
        pipeline=pipeline,
        repo=RepoFacts(
            repo, owner, name, git_http_url=Path.cwd().as_uri() if clone else "", trusted=trusted
        ),
        build=replace(
            _commit(sha),
            event=event,
            target=branch,
            source=branch,
            ref=ref or (f"refs/heads/{branch}" if branch else ""),
            deploy_to=deploy_to,
            params={**host, **pairs(param or [], "--param")},
        ),
        instance=instance,
        environ={**proxies(env.child_environ()), **variables(env_file)},
        host=host,
    )
    netrc = Netrc(netrc_machine, netrc_username, netrc_password) if netrc_machine else None
    terminal = Terminal()
    try:
        compiled = _compiled(wanted, terminal)
    except PipelineError as fault:
        raise fail(fault) from fault
    spec = chosen(compiled.spec, include or [], exclude or [], resume_at, clone=clone)
    spec = with_secrets(replace(compiled, spec=spec), variables(secret_file), netrc)
    given = tuple(one for item in registry or [] for one in logins(item))
    spec = replace(
        _mounted(spec, volume or []),
        timeout_s=seconds(timeout),
        auths=(*spec.auths, *given),
        masks=(*spec.masks, *(one.password for one in given if one.password)),
        environment={**spec.environment, **host},
        # the commit of the folder, whatever the pipeline shall take it for
        clone=replace(spec.clone, ref="", branch=""),
    )
    options = machinery(env.child_environ(), network or [], privileged or [])
    set_up_logging(replace(options, log_level="warning"))
    folder = None if clone else Path.cwd()
    status = run(spec if clone else in_place(spec), options, folder, terminal)
    raise typer.Exit(SUCCESS if status == states.SUCCESS else FAILED)


def _compiled(wanted: Wanted, terminal: Terminal) -> Compiled:
    """Compile the pipeline and say which steps are left out.

    Raises: PipelineError, Refused.
    """
    text = modern(wanted.file, wanted.repo, wanted.build)
    parsed = parse(text, wanted.file)
    stage = _stage(parsed, wanted)
    facts = Facts(wanted.repo, wanted.build, stage, System(host=wanted.instance))
    compiled = compile_stage(
        text, file=wanted.file, facts=facts, environ=wanted.environ, parsed=parsed
    )
    pipeline = find(parsed, stage.name, stage.axis)
    about = conditions.subject(wanted.repo, wanted.build, wanted.instance)
    for step in plan.steps(pipeline, about) if pipeline else ():
        if step.run == NEVER:
            terminal.line(f"[{step.name}] left out: {step.reason}")
    return compiled


def _stage(parsed: File, wanted: Wanted) -> StageFacts:
    """The pipeline asked for, the one called default, or the first that can run here.

    Raises: Refused.
    """
    points = [
        (pipeline, point_name(pipeline.name, point) if point else pipeline.name, point)
        for pipeline in parsed.pipelines
        for point in pipeline.matrix or ({},)
    ]
    if not points:
        raise Refused(f"{wanted.file}: there is no pipeline in it")
    names = [name for _, name, _ in points]
    here = [name for pipeline, name, _ in points if pipeline.type in TYPES] or names
    name = wanted.pipeline or ("default" if "default" in names else here[0])
    for pipeline, stage, axis in points:
        if name in (stage, pipeline.name):
            return _facts(pipeline, stage, axis)
    raise Refused(f"{wanted.file}: there is no pipeline {name}; there are: {', '.join(names)}")


def _facts(pipeline: Pipeline, name: str, axis: Mapping[str, str]) -> StageFacts:
    return StageFacts(
        name=name,
        type=pipeline.type,
        os=pipeline.os,
        arch=pipeline.arch,
        started=int(time.time()),
        axis=axis,
    )


def host_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this shell that the pipeline and its steps see."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_HOST_PREFIX) and not _CREDENTIAL.search(name)
    }


def machinery(environ: Mapping[str, str], networks: list[str], privileged: list[str]) -> Options:
    """What an agent would be told of this host: the engine is the one the shell's Docker uses."""
    default = Options()
    return replace(
        default,
        networks=tuple(networks),
        docker_host=environ.get("DOCKER_HOST") or default.docker_host,
        docker_tls_verify=bool(environ.get("DOCKER_TLS_VERIFY")),
        docker_cert_path=environ.get("DOCKER_CERT_PATH") or default.docker_cert_path,
        plugin_privileged=tuple(privileged or default.plugin_privileged),
    )


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy settings of this shell, as an agent gives them to steps."""
    either = {name: environ.get(name) or environ.get(name.upper(), "") for name in hooks.PROXIES}
    return hooks.proxies(either)


def _commit(sha: str) -> BuildFacts:
    """A build of the folder's commit, as far as git knows it."""
    now = int(time.time())
    return replace(_committed(sha), created=now, started=now)


def _committed(sha: str) -> BuildFacts:
    command = ["git", "-c", "safe.directory=*", "log", "-1", "--format=%H%n%an%n%ae%n%B"]
    try:
        answer = subprocess.run(
            [*command, *([sha] if sha else [])], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return BuildFacts(after=sha)
    if answer.returncode:
        return BuildFacts(after=sha)
    commit, name, email, message = (*answer.stdout.split("\n", 3), "", "", "")[:4]
    return BuildFacts(
        after=commit,
        before=commit,
        author_login=name,
        author_name=name,
        author_email=email,
        message=message.strip(),
    )


def variables(path: str) -> dict[str, str]:
    """The lines NAME=VALUE of a file: comments, `export` and quotes as in a shell.

    Raises: Refused.
    """
    if not path:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(f"cannot read {path}: {fault}") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _VARIABLE.fullmatch(line)
        if match is None:
            raise Refused(f"{path}:{number}: expected NAME=VALUE")
        found[match[1]] = _unquoted(match[2].strip())
    return found


def _unquoted(value: str) -> str:
    found = _QUOTED.fullmatch(value)
    if found is None:
        return _COMMENT.split(value, maxsplit=1)[0]
    if found[2] is not None:
        return found[2]
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda char: escapes.get(char[1], char[1]), found[1])


def seconds(text: str) -> float:
    """A duration such as 90s, 30m, 1h30m; a number is seconds.

    Raises: Refused.
    """
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise Refused(f"--timeout {text}: expected a duration such as 90s, 30m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + rest)


def logins(item: str) -> tuple[Auth, ...]:
    """Credentials of a registry: in a URL, or all of a Docker configuration file.

    Raises: Refused.
    """
    if "://" in item:
        url = urlsplit(item)
        user, password = unquote(url.username or ""), unquote(url.password or "")
        if not user or not password:
            raise Refused("--registry: expected https://user:password@host")
        return (Auth(auths.registry_host(item), user, password),)
    try:
        return auths.parse(Path(item).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(f"cannot read {item}: {fault}") from None


def _mounted(spec: StageSpec, volumes: list[str]) -> StageSpec:
    """The stage with folders of this host in every step.

    Raises: Refused.
    """
    found: list[tuple[Volume, Mount]] = []
    for number, item in enumerate(volumes):
        source, _, target = item.partition(":")
        if not source or not target:
            raise Refused(f"--volume {item}: expected HOST:PATH")
        name = f"given-{number}"
        host = Volume(name, "host", str(Path(source).expanduser().absolute()))
        found.append((host, Mount(name, target)))
    mounts = tuple(mount for _, mount in found)
    return replace(
        spec,
        volumes=(*spec.volumes, *(volume for volume, _ in found)),
        steps=tuple(
            step if step.kind == CLONE else replace(step, volumes=(*step.volumes, *mounts))
            for step in spec.steps
        ),
    )
