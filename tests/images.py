"""Container images for tests, made from this machine's own programs: no registry is asked.

An image is built when the engine does not have it and is never removed, so that a later run and the
other test processes find it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import docker.errors

BUSYBOX = "ciserver-test/busybox:1"
GIT = "ciserver-test/git:1"
PLUGIN = "ciserver-test/plugin:1"


def busybox_image(engine: str | None = None) -> str:
    """The name of an image with busybox and nothing else."""
    return _ensure(BUSYBOX, (), engine)


def plugin_image() -> str:
    """The name of an image that is a plugin: its program says what it is told."""
    changes = ['ENTRYPOINT ["sh", "-c", "echo $PLUGIN_GREETING, $PLUGIN_NAMES: $PLUGIN_MAP"]']
    return _ensure(PLUGIN, (), changes=changes)


def git_image() -> str:
    """The name of an image with busybox and git."""
    return _ensure(GIT, ("git",))


def _ensure(
    name: str,
    programs: Sequence[str],
    engine: str | None = None,
    changes: Sequence[str] = (),
) -> str:
    client = docker.APIClient(engine, version="auto", timeout=300)
    with contextlib.closing(client), _one_process_at_a_time():
        try:
            client.inspect_image(name)
        except docker.errors.ImageNotFound:
            repository, _, tag = name.partition(":")
            with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                _write_root(Path(file.name), programs)
                client.import_image(
                    src=file.name, repository=repository, tag=tag, changes=list(changes)
                )
    return name


@contextlib.contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / "ciserver-test-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_root(target: Path, programs: Sequence[str]) -> None:
    busybox = _program("busybox")
    applets = subprocess.run(
        [busybox, "--list"], check=True, capture_output=True, text=True
    ).stdout.split()
    with tarfile.open(target, "w") as tar:
        for folder in ("bin", "etc", "root", "tmp", "usr/bin", "var"):
            _add_folder(tar, folder)
        _add_text(
            tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n"
        )
        _add_text(tar, "etc/group", "root:x:0:\nguest:x:1000:\n")
        _add_program(tar, busybox, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                _add_link(tar, f"bin/{applet}", "busybox")
        for program in programs:
            _add_program(tar, _program(program), f"usr/bin/{program}")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed; tests of the Docker driver need it")
    return str(Path(path).resolve())


def _add_program(tar: tarfile.TarFile, path: str, name: str) -> None:
    """A program with the shared libraries it names."""
    tar.add(path, name)
    listing = subprocess.run(["ldd", path], check=False, capture_output=True, text=True).stdout
    for word in listing.split():
        if word.startswith("/"):
            tar.add(Path(word).resolve(), word.lstrip("/"))


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o1777 if name == "tmp" else 0o755
    tar.addfile(info)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    info.size = len(text)
    tar.addfile(info, io.BytesIO(text.encode()))


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.SYMTYPE
    info.linkname = target
    tar.addfile(info)
