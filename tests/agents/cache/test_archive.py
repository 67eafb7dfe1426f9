"""Archives are streams, and broken ones are told."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from agents.cache import archive


def tar(*names: str, link: str = "") -> bytes:
    space = io.BytesIO()
    with tarfile.open(fileobj=space, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            data = name.encode() * 1000
            info.size, info.uid, info.mode = len(data), 7, 0o640
            file.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(f"{names[0]}.link")
            info.type, info.linkname = tarfile.LNKTYPE, link
            file.addfile(info)
    return space.getvalue()


def packed(data: bytes, method: str = "zstd") -> bytes:
    space = io.BytesIO()
    assert archive.write([data[:100], data[100:]], space, method) == len(data)
    return space.getvalue()


@pytest.mark.parametrize(
    ("method", "magic"), [("zstd", b"\x28\xb5\x2f\xfd"), ("gzip", b"\x1f\x8b")]
)
def test_what_was_packed_is_read(method: str, magic: bytes) -> None:
    data = tar("a", "b/c")
    made = packed(data, method)
    assert made.startswith(magic)
    assert b"".join(archive.read(io.BytesIO(made))) == data


def test_a_plain_tar_is_read_too() -> None:
    data = tar("a")
    assert b"".join(archive.read(io.BytesIO(data))) == data


@pytest.mark.parametrize("method", ["zstd", "gzip"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_archive_is_broken(method: str, share: float) -> None:
    made = packed(tar(*(f"file-{n}" for n in range(200))), method)
    with pytest.raises(archive.Broken):
        list(archive.read(io.BytesIO(made[: int(len(made) * share)])))


@pytest.mark.parametrize("method", ["zstd", "gzip"])
def test_a_changed_archive_is_broken(method: str) -> None:
    made = bytearray(packed(tar("a"), method))
    made[len(made) // 2] ^= 0xFF
    with pytest.raises(archive.Broken):
        list(archive.read(io.BytesIO(bytes(made))))


def test_names_of_a_tree_get_another_beginning(tmp_path: Path) -> None:
    long = "bundle/" + "x" * 120 + "/" + "ü" * 90
    data = tar("bundle/a", long, link="bundle/a")
    got = b"".join(archive.renamed([data[:700], data[700:]], "vendor/bundle"))
    with tarfile.open(fileobj=io.BytesIO(got)) as file:
        members = file.getmembers()
        assert [one.name for one in members] == [
            "vendor/bundle/a",
            f"vendor/{long}",
            "vendor/bundle/a.link",
        ]
        assert members[2].linkname == "vendor/bundle/a"
        assert (members[1].uid, members[1].mode) == (7, 0o640)
        content = file.extractfile(members[1])
        assert content is not None
        assert content.read() == long.encode() * 1000


def test_the_first_name_is_told_and_nothing_is_lost() -> None:
    data = tar("/root/x", "/root/y")
    name, pieces = archive.first_name(iter([data[:600], data[600:]]))
    assert name == "/root/x"
    assert b"".join(pieces) == data


def test_a_stopped_step_breaks_a_stream_off() -> None:
    answers = iter([False, True])
    pieces = archive.watched([b"a", b"b"], lambda: next(answers))
    assert next(pieces) == b"a"
    with pytest.raises(archive.Stopped):
        next(pieces)
