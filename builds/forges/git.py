"""Any git repository, by the `git` program: local ones in place, others through a mirror."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from django.conf import settings

from builds.forges.base import Commit, ForgeError, NotFound, Snapshot, Source, Unreachable
from builds.forges.objects import Object, shelf
from builds.forges.reasons import reason
from pipeline.remotes import ssh_command

READ_TIMEOUT_S = 30
FETCH_TIMEOUT_S = 120
ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_SHA = re.compile(r"[0-9a-f]{7,64}")
_ZEROS = re.compile(r"0*")
_MISSING = (b"couldn't find remote ref", b"not our ref", b"no such remote ref")


class Git:
    """Reads repositories by URL (`file://`, `http(s)://`, `ssh://`, `git@host:path`) or path."""

    statuses = False

    def __init__(self, mirrors: Path | None = None) -> None:
        self.mirrors = mirrors or Path(settings.DATA_DIR) / "mirrors"

    def snapshot(self, source: Source, rev: str, path: str) -> Snapshot:
        """A commit and a file of it with one run of git where the repository is local."""
        folder = self._folder(source, rev)
        name = path.removeprefix("./").lstrip("/")
        found = _objects(folder, f"{rev}^{{commit}}", f"{rev}:{name}")
        if found[0] is None:
            raise _no_commit(folder, source, rev)
        sha, _, data = found[0]
        blob = found[1]
        text = blob[2].decode(errors="replace") if blob and blob[1] == "blob" else None
        return Snapshot(_commit(sha, data), text)

    def commit(self, source: Source, rev: str) -> Commit:
        """The commit a full ref or sha names."""
        folder = self._folder(source, rev)
        found = _objects(folder, f"{rev}^{{commit}}")[0]
        if found is None:
            raise _no_commit(folder, source, rev)
        return _commit(found[0], found[2])

    def file(self, source: Source, sha: str, path: str) -> str:
        """A file's text at a commit."""
        text = self.snapshot(source, sha, path).text
        if text is None:
            raise NotFound(f"{path}: no such file in {source.slug} at {sha[:10]}")
        return text

    def folder(self, source: Source, sha: str, path: str) -> tuple[str, ...]:
        """Names of the files in a folder at a commit."""
        if not _SHA.fullmatch(sha):
            return ()
        where = f"{sha}:{path.strip('/')}"
        done = _git(self._folder(source, sha), "ls-tree", "-z", where)
        if done.returncode:
            return ()
        entries = (entry.split(b"\t", 1) for entry in done.stdout.split(b"\0") if entry)
        return tuple(
            name.decode(errors="replace") for mode, name in entries if mode.split()[1] == b"blob"
        )

    def changed(self, source: Source, before: str, after: str) -> tuple[str, ...] | None:
        """Paths changed since the two commits' common ancestor."""
        if not (_SHA.fullmatch(after) and _SHA.fullmatch(before or after)):
            return None
        folder = self._folder(source, after)
        if _ZEROS.fullmatch(before):
            how = ["show", "--first-parent", "-m", "--format=", after]
        else:
            with contextlib.suppress(NotFound):
                folder = self._folder(source, before)
            how = ["diff", f"{before}...{after}"]
        done = _git(folder, *how, "--name-only", "--no-renames", "-z", "--")
        if done.returncode:
            return None
        return tuple(p.decode(errors="replace") for p in done.stdout.split(b"\0") if p)

    def branch_head(self, source: Source, branch: str) -> str:
        """The sha a branch points to."""
        return self.commit(source, f"refs/heads/{branch}").sha

    def default_branch(self, source: Source) -> str:
        """The branch that HEAD names."""
        done = _git(None, "ls-remote", "--symref", "--", _url(source), "HEAD")
        if done.returncode:
            raise _unreachable(source, done.stderr)
        found = re.match(rb"ref: refs/heads/(\S+)\tHEAD", done.stdout)
        if not found:
            raise NotFound(f"{source.slug}: the repository has no commits yet")
        return found[1].decode()

    def _folder(self, source: Source, rev: str) -> Path:
        """A repository on disk that has `rev`, if anybody has."""
        local = local_path(source.url)
        if local is not None:
            return local
        folder = self.mirrors / hashlib.sha256(source.url.encode()).hexdigest()[:24]
        with _locked(folder.with_suffix(".lock")):
            if not folder.exists():
                _make_mirror(folder)
            self._fetch(folder, source, rev)
        return folder

    def _fetch(self, folder: Path, source: Source, rev: str) -> None:
        if rev.startswith("refs/"):
            _fetch(folder, source, f"+{rev}:{rev}")
        elif _objects(folder, f"{rev}^{{commit}}")[0] is None:
            _fetch(folder, source, *ALL_REFS)
            if len(rev) >= 40 and _objects(folder, f"{rev}^{{commit}}")[0] is None:
                _fetch(folder, source, rev)


@dataclass(frozen=True, slots=True)
class Credential:
    """A login for a git host; `host` is its scheme, name and port."""

    host: str
    login: str
    password: str = field(repr=False)


@lru_cache(maxsize=4)
def credentials(urls: tuple[str, ...]) -> dict[str, Credential]:
    """The credentials in URLs like `https://user:password@host`, by the URL without them."""
    found = {}
    for url in urls:
        parts = urlsplit(url)
        login, password = unquote(parts.username or ""), unquote(parts.password or "")
        found[host(url)] = Credential(host(url), login, password)
    return found


def host(url: str) -> str:
    """The scheme, name and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def local_path(url: str) -> Path | None:
    """The directory a URL or path names on this machine, or None for a remote."""
    path = Path(url.removeprefix("file://"))
    return path if path.is_absolute() and path.is_dir() else None


def redact(url: str) -> str:
    """The URL without a password, or the token that may stand in the place of a name."""
    parts = urlsplit(url)
    if "@" not in parts.netloc or (parts.scheme == "ssh" and not parts.password):
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _url(source: Source) -> str:
    if not source.url:
        raise Unreachable(f"{source.slug}: the repository has no clone address")
    return source.url


def _make_mirror(folder: Path) -> None:
    """An empty repository, there when it is whole. For who has the lock. Raises: Unreachable."""
    made = folder.with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    done = _git(None, "init", "--quiet", "--bare", str(made))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Unreachable(f"the server cannot make a mirror of the repository: {said}")
    made.rename(folder)


def _fetch(folder: Path, source: Source, *refspecs: str) -> None:
    options = ("--quiet", "--no-tags", "--force", "--no-write-fetch-head")
    done = _git(folder, "fetch", *options, "--", _url(source), *refspecs, timeout_s=FETCH_TIMEOUT_S)
    if not done.returncode:
        return
    if any(words in done.stderr for words in _MISSING):
        raise _no_commit(None, source, refspecs[0].lstrip("+").partition(":")[0])
    raise _unreachable(source, done.stderr)


def _no_commit(folder: Path | None, source: Source, rev: str) -> ForgeError:
    """Why there is no such commit, in one sentence."""
    where = ("for-each-ref", "--count=1") if folder else ("ls-remote", "--", _url(source))
    refs = _git(folder, *where)
    if refs.returncode:
        return _unreachable(source, refs.stderr)
    if not refs.stdout.strip():
        return NotFound(f"{source.slug}: the repository has no commits yet")
    kind, name = _words(rev)
    return NotFound(f"{source.slug}: there is no {kind} {name} in {redact(source.url)}")


def _words(rev: str) -> tuple[str, str]:
    if rev.startswith("refs/heads/"):
        return "branch", rev.removeprefix("refs/heads/")
    if rev.startswith("refs/tags/"):
        return "tag", rev.removeprefix("refs/tags/")
    return ("commit", rev[:12]) if _SHA.fullmatch(rev) else ("ref", rev)


def _unreachable(source: Source, stderr: bytes) -> Unreachable:
    has_login = host(source.url) in credentials(settings.GIT_CREDENTIALS)
    why = reason(stderr.decode(errors="replace"), has_login=has_login)
    shown = redact(source.url)
    return Unreachable(f"{source.slug}: cannot read {shown}: {why.replace(source.url, shown)}")


def _objects(folder: Path, *names: str) -> list[Object | None]:
    """Each named object, None where there is none."""
    asked = tuple("!" if "\n" in name or "\0" in name else name for name in names)
    return shelf(_environ).read(folder, asked, READ_TIMEOUT_S)


def _commit(sha: str, data: bytes) -> Commit:
    """Read a raw commit object."""
    head, _, message = data.partition(b"\n\n")
    author = re.search(rb"^author (.*?) ?<([^>]*)>", head, re.MULTILINE)
    name, email = author.groups() if author else (b"", b"")
    return Commit(
        sha=sha,
        message=message.decode(errors="replace"),
        author_name=name.decode(errors="replace"),
        author_email=email.decode(errors="replace"),
    )


def _git(
    folder: Path | None, *args: str, stdin: bytes = b"", timeout_s: float = READ_TIMEOUT_S
) -> subprocess.CompletedProcess[bytes]:
    """Run git, never asking anybody anything."""
    where = ["-C", str(folder)] if folder else []
    command = ["git", *where, "-c", "safe.directory=*", "-c", "gc.auto=0", *args]
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout_s, env=_environ()
        )
    except subprocess.TimeoutExpired as fault:
        raise Unreachable(f"git {args[0]} took longer than {timeout_s:.0f} s") from fault
    except FileNotFoundError as fault:
        raise Unreachable("the program git is not installed on the server") from fault


def _environ() -> dict[str, str]:
    """The server's own environment without what would point git elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **inherited,
        **_headers(),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ASKPASS": "",  # nor any window: git would ask SSH_ASKPASS next
        "GIT_SSH_COMMAND": ssh_command(settings.GIT_SSH_KEY, settings.GIT_SSH_KNOWN_HOSTS),
        "LC_ALL": "C",
    }


def _headers() -> dict[str, str]:
    """git's settings that send each host its credentials, and no other host."""
    found = {}
    known = credentials(settings.GIT_CREDENTIALS).values()
    for index, one in enumerate(known):
        pair = base64.b64encode(f"{one.login}:{one.password}".encode()).decode()
        found[f"GIT_CONFIG_KEY_{index}"] = f"http.{one.host}/.extraHeader"
        found[f"GIT_CONFIG_VALUE_{index}"] = f"Authorization: Basic {pair}"
    return {**found, "GIT_CONFIG_COUNT": str(len(known))} if found else {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two processes never fetch into one mirror at a time.

    It is empty unless the mirror is in use, or whoever used it was killed over it: then the locks
    are removed that his git left in the mirror.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unreachable("another fetch of this repository takes too long") from None
                time.sleep(0.05)
        if os.fstat(file.fileno()).st_size:
            for lock in path.with_suffix("").rglob("*.lock"):
                lock.unlink(missing_ok=True)
        file.write("in use\n")
        file.flush()
        yield
        file.truncate(0)
