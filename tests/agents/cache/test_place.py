"""Trees that are unpacked on this host."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agents.cache.backends.base import CacheError
from agents.cache.place import HostPlace
from tests.services import wait_for


def stream(name: str, content: bytes) -> bytes:
    """A tar stream of one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def end_tar() -> None:
    """Kill it, and wait until it is dead."""
    (tar,) = (child for child in psutil.Process().children() if child.name() == "tar")
    tar.kill()
    wait_for("the end of tar", lambda: tar.status() == psutil.STATUS_ZOMBIE)


def test_it_unpacks_where_the_step_is(tmp_path: Path) -> None:
    HostPlace(str(tmp_path)).unpack([stream("a/b", b"hello")])

    assert (tmp_path / "a" / "b").read_bytes() == b"hello"


def test_what_is_no_archive_is_tars_own_words(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"tar cannot unpack: .*archive"):
        HostPlace(str(tmp_path)).unpack([b"nonsense" * 4096])


def test_a_source_that_fails_late_keeps_its_words(tmp_path: Path) -> None:
    """tar is gone by then, and what is in the buffer has nowhere to go."""

    def pieces() -> Iterator[bytes]:
        yield b"begin"
        end_tar()
        raise CacheError("the other side hung up")

    with pytest.raises(CacheError, match="the other side hung up"):
        HostPlace(str(tmp_path)).unpack(pieces())
