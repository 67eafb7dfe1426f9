"""The host owner's scripts around stages and the agent's end, and what every step is given.

Source: Semaphore's agent (reference: agents, section 3). The scripts run on the host with the
agent's rights, in the stage's folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from agents.option_table import Options

log = structlog.get_logger(__name__)

Write = Callable[[bytes], object]
SHUTDOWN_VARIABLES: Final = ("CISERVER_AGENT_SHUTDOWN_REASON", "SEMAPHORE_AGENT_SHUTDOWN_REASON")
PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")
_SHUTDOWN_LIMIT_S: Final = 300.0
_READ_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables of a stage that a hook sees. Others (BASH_ENV, LD_PRELOAD, PATH, …) would let a
#: pipeline file run things on the host, outside any container.
_OF_THE_STAGE: Final = re.compile(r"(DRONE|CI|SEMAPHORE|GIT_AUTHOR|GIT_COMMITTER)(_\w+)?")
#: What a shell sets by itself says nothing about what a sourced hook wants.
_OF_THE_SHELL: Final = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "BASH_EXECUTION_STRING"})


class Reason(StrEnum):
    """Why the agent leaves, by the names that shutdown hooks know."""

    IDLE = "IDLE"
    JOB_FINISHED = "JOB_FINISHED"
    REQUESTED = "REQUESTED"
    INTERRUPTED = "INTERRUPTED"
    UNABLE_TO_SYNC = "UNABLE_TO_SYNC"
    UNKNOWN = "UNKNOWN"


class HookError(Exception):
    """A hook or file that the options make a condition of the stage; its message is the reason."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a hook ended. `exports`: variables a sourced hook set or changed."""

    exit_code: int = 0
    exports: Mapping[str, str] = field(default_factory=dict)


def environment(options: Options) -> dict[str, str]:
    """Variables of this agent for every step: proxies, `env-vars`, then `env-file`.

    The file is read each time, so that a change counts for the next stage. Raises: HookError.
    """
    found = proxies({name: getattr(options, name) for name in PROXIES})
    found |= options.env_vars
    if options.env_file:
        try:
            found |= read_env_file(Path(options.env_file).read_text())
        except (OSError, UnicodeDecodeError) as fault:
            raise HookError(f"env-file {options.env_file}: {fault}") from fault
    return found


def proxies(values: Mapping[str, str]) -> dict[str, str]:
    """Those of `PROXIES` that have a value, in both spellings: programs read either."""
    given = {name: values[name] for name in PROXIES if values[name]}
    return {**given, **{name.upper(): value for name, value in given.items()}}


def read_env_file(text: str) -> dict[str, str]:
    """NAME=VALUE lines; comments, `export` and quotes around a value are understood."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if equals and _NAME.fullmatch(name):
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[name] = value
    return found


def missing_files(options: Options) -> tuple[str, ...]:
    """Host paths of `files` that are not there."""
    hosts = (item.partition(":")[0] for item in options.files)
    return tuple(host for host in hosts if not Path(host).exists())


def present_files(options: Options) -> tuple[str, ...]:
    """Those of `files` that are there: an engine would make a folder of one that is not."""
    missing = missing_files(options)
    return tuple(item for item in options.files if item.partition(":")[0] not in missing)


def check_files(options: Options, write: Write) -> None:
    """Say which of `files` are missing. Raises: HookError if the options make that a failure."""
    for path in missing_files(options):
        if options.fail_on_missing_files:
            raise HookError(f"fail-on-missing-files: {path} does not exist on this host")
        write(f"[ci] the file {path} does not exist on this host; going on without it\n".encode())


def pre_job(options: Options, environ: Mapping[str, str], folder: Path, write: Write) -> Ran:
    """Run the pre-job hook, if there is one, before a stage's steps.

    Raises: HookError if it fails and the options make that the stage's failure.
    """
    if not options.pre_job_hook_path:
        return Ran()
    path = options.pre_job_hook_path
    seen = _seen(options, environ)
    ran = (
        _run_sourced(path, seen, folder, write)
        if options.source_pre_job_hook
        else _run([*_shell(), path], seen, folder, write)
    )
    if ran.exit_code:
        text = f"the pre-job hook {path} ended with exit code {ran.exit_code}"
        if options.fail_on_pre_job_hook_error:
            raise HookError(text)
        write(f"[ci] {text}; going on\n".encode())
    return ran


def post_job(
    options: Options, environ: Mapping[str, str], folder: Path, write: Write, result: str
) -> None:
    """Run the post-job hook, if there is one, after a stage's steps; its result is ignored.

    `result` is the stage's status, told as Semaphore does: passed, failed or stopped.
    """
    if not options.post_job_hook_path:
        return
    words = {"success": "passed", "killed": "stopped"}
    told = {
        **_seen(options, environ),
        "SEMAPHORE_JOB_RESULT": words.get(result, "failed"),
        "CISERVER_STAGE_STATUS": result,
    }
    ran = _run([*_shell(), options.post_job_hook_path], told, folder, write)
    if ran.exit_code:
        text = f"[ci] the post-job hook ended with exit code {ran.exit_code}, which is ignored\n"
        write(text.encode())


def shutdown(options: Options, reason: Reason) -> None:
    """Run the shutdown hook, if there is one, after the agent has left. Never raises."""
    path = options.shutdown_hook_path
    if not path:
        return
    environ = {**os.environ, **dict.fromkeys(SHUTDOWN_VARIABLES, reason.value)}
    try:
        ended = subprocess.run(
            [*_shell(), path], env=environ, timeout=_SHUTDOWN_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        log.error("hook.shutdown-failed", path=path, reason=str(fault))
        return
    log.info("hook.shutdown", path=path, reason=reason.value, exit_code=ended.returncode)


def _seen(options: Options, environ: Mapping[str, str]) -> dict[str, str]:
    """What a hook sees of a stage's variables, and the host owner's own."""
    of_stage = {name: text for name, text in environ.items() if _OF_THE_STAGE.fullmatch(name)}
    return {**of_stage, **environment(options)}


def _shell() -> list[str]:
    """Hooks are bash scripts where there is bash."""
    return [shutil.which("bash") or "/bin/sh"]


def _run_sourced(path: str, environ: Mapping[str, str], folder: Path, write: Write) -> Ran:
    """Source a script in a shell and see which variables it left exported."""
    with tempfile.TemporaryDirectory(prefix="hook-") as place:
        result = Path(place) / "environ"
        program = f'. "$1"; code=$?; env -0 > "{result}"; exit $code'
        command = [*_shell(), "-c", program, "hook", os.path.abspath(path)]  # noqa: PTH100 - no symlinks resolved
        ran = _run(command, environ, folder, write)
        if not result.exists():
            return ran
        pairs = (
            entry.partition("=")
            for entry in result.read_bytes().decode(errors="replace").split("\0")
        )
        after = {name: value for name, _, value in pairs if _NAME.fullmatch(name)}
    before = {**_host_environ(), **environ}
    exports = {
        name: value
        for name, value in after.items()
        if name not in _OF_THE_SHELL and before.get(name) != value
    }
    return Ran(ran.exit_code, exports)


def _host_environ() -> dict[str, str]:
    """What hooks inherit from the agent: no option and no token of it."""
    keep = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in keep if name in os.environ}


def _run(command: list[str], environ: Mapping[str, str], folder: Path, write: Write) -> Ran:
    """Run a hook to its end, its output shown as it comes; a missing one is exit code 127."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**_host_environ(), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as fault:
        write(f"[ci] cannot run {command[-1]}: {fault}\n".encode())
        return Ran(127)
    with process:
        reader = threading.Thread(target=_copy, args=(process, write), daemon=True)
        reader.start()
        code = process.wait()
        # what the hook left in the background may hold its output open for ever
        reader.join(1.0)
        if reader.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
    return Ran(code if code >= 0 else 128 - code)


def _copy(process: subprocess.Popen[bytes], write: Write) -> None:
    if process.stdout is not None:
        while data := process.stdout.read(_READ_BYTES):
            write(data)
