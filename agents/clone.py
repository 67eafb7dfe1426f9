"""The step `clone`: put the commit into the checkout, with git and a mirror of the repository.

The mirror spares the network, not the check: what the server named is fetched from the remote
unless the commit is there already. Objects are copied out of the mirror, never linked, so that no
step can change what later builds get. A clone with a depth asks the remote itself.

Source: drone-git (reference: pipeline format, section 8, Clone).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agents.drivers.base import EXIT_ERROR, EXIT_KILLED, Outcome, Room, Sink
from agents.drivers.exec import ExecProcess, spawn
from agents.drivers.leftovers import MARK
from agents.mirrors import locked, path_of, unfinished
from agents.options import Options
from pipeline import remotes
from pipeline.remotes import Trouble, trouble
from pipeline.spec import CloneSpec, Netrc

_TAG: Final = "refs/tags/"
_PULL: Final = re.compile(r"refs/(pull|pull-request|pull-requests|merge-requests)/")
#: Seconds between tries when the spec asks for retries.
_RETRY_S: Final = 1.0
#: How often a mirror in use is looked at.
_LOOK_S: Final = 0.05
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{4,64}")
_SHA: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: How much of git's last words we look at for what we can explain.
_WORDS_BYTES: Final = 4096
_HOST_KEY: Final = (
    "this agent does not trust the git host's key: put it into known_hosts of the agent's user, or "
    "into the file of the option git-ssh-known-hosts"
)
#: What the owner of this host can do.
_HINTS: Final[Mapping[Trouble, str]] = {
    Trouble.OTHER_HOST_KEY: _HOST_KEY,
    Trouble.HOST_KEY: _HOST_KEY,
    Trouble.OPEN_KEY: "ssh uses no key that others can read: chmod 600 the file of the key",
    Trouble.KEY: "the git host refuses this agent's ssh key: give it the public half, or name "
    "another key with the option git-ssh-key",
    Trouble.LOGIN: "the git host wants another login: the server's CISERVER_GIT_CREDENTIALS gives "
    "agents one for private repositories, else the file .netrc of the agent's user counts",
}


class CloneProcess:
    """Behaves like a driver's process: `wait` does the work."""

    def __init__(
        self,
        spec: CloneSpec,
        room: Room,
        sink: Sink,
        *,
        mirrors: Path,
        environ: Mapping[str, str],
        netrc: Netrc | None = None,
        ssh: str = "",
    ) -> None:
        self._spec, self._room, self._sink = spec, room, _Heard(sink)
        self._mirror = path_of(mirrors, spec.remote)
        self._environ = _environ(spec, room, environ, netrc)
        if ssh or "GIT_SSH_COMMAND" not in self._environ:
            self._environ["GIT_SSH_COMMAND"] = ssh or remotes.ssh_command("", "")
        self._netrc = netrc
        self._lock = threading.Lock()
        self._process: ExecProcess | None = None
        self._killed = threading.Event()

    def wait(self) -> Outcome:
        """Clone; the outcome has git's exit code, the sink what git said."""
        odd = _odd(self._spec)
        if odd:
            return Outcome(EXIT_ERROR, error=f"cannot clone: {odd}")
        try:
            if self._netrc is not None:
                _write_netrc(self._room, self._netrc)
            self._clone()
        except _Failed as failed:
            self._explain()
            return Outcome(EXIT_KILLED if self._killed.is_set() else failed.code)
        except OSError as fault:
            return Outcome(EXIT_ERROR, error=f"cannot clone: {fault}")
        return Outcome()

    def kill(self) -> None:
        """Stop git."""
        self._killed.set()
        with self._lock:
            if self._process is not None:
                self._process.kill()

    # --- the way ---

    def _clone(self) -> None:
        self._say(f"+ git clone {self._spec.remote} ({self._spec.ref or self._spec.sha or 'HEAD'})")
        if self._spec.depth and not self._mirror.exists():
            self._init()
            self._fetch(self._room.source, self._spec.remote, self._wanted("refs/remotes/origin/"))
        else:
            with self._locked_mirror():
                self._update_mirror()
                self._copy_mirror()
        self._check_out()

    def _init(self) -> None:
        self._git("init", "--quiet", str(self._room.source))
        self._git("remote", "add", "origin", self._spec.remote)

    @contextlib.contextmanager
    def _locked_mirror(self) -> Iterator[None]:
        """One stage at a time updates or reads a mirror."""
        with locked(self._mirror, lambda: self._killed.wait(_LOOK_S)) as is_ours:
            if not is_ours:
                raise _Failed(EXIT_KILLED)
            yield

    def _update_mirror(self) -> None:
        if not self._mirror.exists():
            made = unfinished(self._mirror)
            self._git("init", "--quiet", "--bare", str(made), folder=self._room.root)
            made.rename(self._mirror)
        if not self._has_all():
            self._fetch(self._mirror, self._spec.remote, self._wanted("refs/heads/"))

    def _has_all(self) -> bool:
        """Whether the mirror has the commit and needs no newer ref."""
        spec = self._spec
        is_branch = not spec.ref.startswith(_TAG) and not _PULL.match(spec.ref)
        if not is_branch or not _SHA.fullmatch(spec.sha):
            return False
        arguments = ["cat-file", "-e", f"{spec.sha}^{{commit}}"]
        return self._quiet(self._mirror, arguments) == 0

    def _wanted(self, heads: str) -> list[str]:
        """Refspecs of what this build needs; `heads` is where branches go."""
        spec = self._spec
        if spec.ref.startswith(_TAG):
            return [f"+{spec.ref}:{spec.ref}"]
        branch = [f"+refs/heads/{spec.branch}:{heads}{spec.branch}"] if spec.branch else []
        if _PULL.match(spec.ref):
            return [*branch, f"+{spec.ref}:{spec.ref}"]
        return branch or [f"+refs/heads/*:{heads}*"]

    def _fetch(self, folder: Path, remote: str, refspecs: Sequence[str]) -> None:
        depth = (
            [f"--depth={self._spec.depth}"] if self._spec.depth and folder != self._mirror else []
        )
        quiet = [] if self._spec.trace else ["--quiet"]
        for attempt in range(self._spec.retries + 1):
            try:
                self._git("fetch", "--no-tags", *quiet, *depth, remote, *refspecs, folder=folder)
                return
            except _Failed:
                if attempt == self._spec.retries or self._killed.wait(_RETRY_S):
                    raise
                self._say(f"+ trying again ({attempt + 1} of {self._spec.retries})")

    def _copy_mirror(self) -> None:
        """A repository of its own with copies of the mirror's objects and refs."""
        source = self._room.source
        self._git(
            "clone", "--quiet", "--no-checkout", "--no-hardlinks", "--no-tags",
            str(self._mirror), str(source), folder=self._room.root,
        )  # fmt: skip
        self._git("remote", "set-url", "origin", self._spec.remote)
        if self._spec.ref.startswith(_TAG) or _PULL.match(self._spec.ref):
            ref = self._spec.ref
            self._git("fetch", "--quiet", "--no-tags", str(self._mirror), f"+{ref}:{ref}")

    def _check_out(self) -> None:
        spec = self._spec
        branch = f"refs/remotes/origin/{spec.branch}"
        if spec.ref.startswith(_TAG):
            self._git("checkout", "--quiet", "--detach", f"{spec.ref}^{{commit}}")
        elif _PULL.match(spec.ref):
            if spec.branch:
                self._git("checkout", "--quiet", "-B", spec.branch, branch)
            self._git("merge", "--no-edit", spec.sha or spec.ref)
        elif spec.branch:
            self._git("checkout", "--quiet", "-B", spec.branch, spec.sha or branch)
        else:
            self._git("checkout", "--quiet", "--detach", spec.sha or "refs/remotes/origin/HEAD")
        self._git("log", "--max-count=1", "--format=HEAD is now at %h %s")

    # --- git ---

    def _git(self, *arguments: str, folder: Path | None = None) -> None:
        """Run git, its output into the step's log. Raises: _Failed."""
        where = folder or self._room.source
        with self._lock:
            if self._killed.is_set():
                raise _Failed(EXIT_KILLED)
            child = spawn(["git", *_CONFIG, *arguments], self._environ, where)
            self._process = ExecProcess(child, self._sink)
        outcome = self._process.wait()
        self._process.release()
        if outcome.exit_code or self._killed.is_set():
            raise _Failed(outcome.exit_code or EXIT_KILLED)

    def _quiet(self, folder: Path, arguments: Sequence[str]) -> int:
        command = ["git", *_CONFIG, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=self._environ, capture_output=True, check=False
        )
        return done.returncode

    def _explain(self) -> None:
        """Say what can be done, where git's last words tell."""
        found = trouble(self._sink.tail.decode(errors="replace"))
        if found is not None and found in _HINTS:
            self._say(f"[ci] {_HINTS[found]}")

    def _say(self, line: str) -> None:
        self._sink.write(line.encode() + b"\n")


def _odd(spec: CloneSpec) -> str:
    """What git could take for an option or would not know; empty if nothing is."""
    if spec.sha and not _COMMIT.fullmatch(spec.sha):
        return f"{spec.sha!r} is no commit id"
    for text in (spec.remote, spec.ref, spec.branch):
        if text.startswith("-") or any(ord(character) < 32 for character in text):
            return f"{text!r} is no name of a remote, ref or branch"
    return "" if spec.remote else "the repository has no address to clone from"


def ssh_command(options: Options) -> str:
    """GIT_SSH_COMMAND for the key and the hosts of the options; empty where they name neither."""
    key, hosts = options.git_ssh_key, options.git_ssh_known_hosts
    return remotes.ssh_command(key, hosts) if key or hosts else ""


class _Heard:
    """Passes output on and remembers its end."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.tail = b""

    def write(self, data: bytes) -> None:
        """Pass it on."""
        self.tail = (self.tail + data)[-_WORDS_BYTES:]
        self._sink.write(data)


class _Failed(Exception):
    """git ended with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"git ended with exit code {code}")
        self.code = code


#: A repository of another user is fine to read; nothing asks; nothing runs in the background.
_CONFIG: Final = (
    "-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
    "-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main",
    "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never",
)  # fmt: skip


_HARMLESS: Final = re.compile(
    r"GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)


def _environ(
    spec: CloneSpec, room: Room, environ: Mapping[str, str], netrc: Netrc | None
) -> dict[str, str]:
    """git's environment: the host's, the commit's author, and the netrc's home if there is one.

    `environ` has what the pipeline file says, and most variables of git's make it run programs, on
    this host and outside any container: only those that cannot are taken.
    """
    names = ("PATH", "HOME", "USER", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "GIT_SSH_COMMAND", "LANG")
    found = {name: os.environ[name] for name in names if name in os.environ}
    found |= {name: value for name, value in environ.items() if _HARMLESS.fullmatch(name)}
    found[MARK] = room.key  # should this agent die, its next life ends git before it clones again
    found["GIT_TERMINAL_PROMPT"] = "0"
    found["GIT_ASKPASS"] = ""
    if netrc is not None:
        found["HOME"] = str(_netrc_home(room))
    if spec.skip_verify:
        found["GIT_SSL_NO_VERIFY"] = "true"
    if spec.trace:
        found["GIT_TRACE"] = "1"
    for role in ("AUTHOR", "COMMITTER"):
        found.setdefault(f"GIT_{role}_NAME", "drone")
        found.setdefault(f"GIT_{role}_EMAIL", "noreply@drone")
    return found


def _netrc_home(room: Room) -> Path:
    return room.root / "clone"


def _write_netrc(room: Room, netrc: Netrc) -> None:
    home = _netrc_home(room)
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / ".netrc"
    path.touch(mode=0o600)
    path.write_text(f"machine {netrc.machine} login {netrc.login} password {netrc.password}\n")
