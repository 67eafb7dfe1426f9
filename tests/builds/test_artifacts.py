"""The store of artifacts: parts in, parts out, limits, and what goes when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from builds import artifacts, triggers
from builds.artifacts import ArtifactError, End
from builds.models import Artifact, Repo, Stage, User

pytestmark = pytest.mark.django_db
UPLOAD = "0123456789abcdef"


@pytest.fixture
def stage(make_repo: Callable[..., Repo], user: User) -> Stage:
    build = triggers.create(make_repo(), user=user)
    return Stage.objects.get(build=build)


def end(data: bytes, **more: Any) -> End:
    return End(len(data), hashlib.sha256(data).hexdigest(), **more)


def push(stage: Stage, path: str, data: bytes, **more: Any) -> Artifact:
    artifacts.add(stage, path, UPLOAD, 0, data, end(data, **more))
    found = artifacts.one(stage.build_id, path)
    assert found is not None
    return found


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_parts_become_a_file(stage: Stage) -> None:
    whole = b"one two three"

    assert artifacts.add(stage, "a/b", UPLOAD, 0, b"one ", None) == 4
    assert artifacts.one(stage.build_id, "a/b") is None
    assert artifacts.add(stage, "a/b", UPLOAD, 4, b"two ", None) == 8
    assert artifacts.add(stage, "a/b", UPLOAD, 8, b"three", end(whole, mode=0o755)) == 13

    found = artifacts.one(stage.build_id, "./a//b")
    assert found is not None
    assert (found.path, found.size_bytes, found.mode) == ("a/b", 13, 0o755)
    assert b"".join(artifacts.content(found)) == whole
    assert artifacts.part(found, 4) == b"two three"
    assert artifacts.part(found, 13) == b""


def test_a_part_sent_twice_changes_nothing(stage: Stage) -> None:
    artifacts.add(stage, "a", UPLOAD, 0, b"one", None)

    assert artifacts.add(stage, "a", UPLOAD, 3, b"two", None) == 6
    assert artifacts.add(stage, "a", UPLOAD, 3, b"two", None) == 6
    assert artifacts.add(stage, "a", UPLOAD, 6, b"", end(b"onetwo")) == 6
    assert artifacts.add(stage, "a", UPLOAD, 6, b"", end(b"onetwo")) == 6
    assert Artifact.objects.count() == 1


def test_an_empty_file_is_a_file(stage: Stage) -> None:
    assert push(stage, "empty", b"").size_bytes == 0


def test_a_later_push_replaces_the_file(stage: Stage, data_dir: Path) -> None:
    push(stage, "a", b"old")

    found = push(stage, "a", b"new")

    assert b"".join(artifacts.content(found)) == b"new"
    assert len(files(data_dir / "artifacts")) == 1


def test_what_does_not_arrive_whole_is_no_artifact(stage: Stage, data_dir: Path) -> None:
    with pytest.raises(ArtifactError, match="not what was sent"):
        artifacts.add(stage, "a", UPLOAD, 0, b"one", End(3, hashlib.sha256(b"two").hexdigest()))

    assert artifacts.found(stage.build_id) == []
    assert files(data_dir / "artifacts") == []


@pytest.mark.parametrize(
    "path", ["", ".", "/etc/passwd", "../x", "a/../../x", "a\nb", "a\0b", "x" * 1001, "\ud800"]
)
def test_names_are_relative_paths(stage: Stage, path: str) -> None:
    with pytest.raises(ArtifactError):
        artifacts.add(stage, path, UPLOAD, 0, b"", end(b""))


@pytest.mark.parametrize("upload", ["", "../../../x", "0123456789ABCDEF", UPLOAD + "0"])
def test_an_upload_has_a_plain_name(stage: Stage, upload: str) -> None:
    with pytest.raises(ArtifactError):
        artifacts.add(stage, "a", upload, 0, b"", None)


def test_a_build_has_a_limit(stage: Stage, settings: Any) -> None:
    settings.ARTIFACT_LIMIT_BYTES = 10
    push(stage, "a", b"123456")

    push(stage, "a", b"1234567890")
    with pytest.raises(ArtifactError, match="may take") as caught:
        artifacts.add(stage, "b", UPLOAD, 0, b"1", None)
    assert caught.value.code == "artifacts:too-large"


def test_a_name_finds_all_below_it(stage: Stage) -> None:
    for path in ("dist/b", "dist/a/x", "distant", "other"):
        push(stage, path, b"x")

    assert [one.path for one in artifacts.found(stage.build_id, "dist")] == ["dist/a/x", "dist/b"]
    assert [one.path for one in artifacts.found(stage.build_id, "other")] == ["other"]
    assert len(artifacts.found(stage.build_id)) == 4


def test_it_expires_as_asked_but_not_later_than_the_server_says(
    stage: Stage, settings: Any
) -> None:
    settings.ARTIFACT_DAYS = 2
    day = timedelta(days=1)

    kept = [
        push(stage, name, b"x", expire_s=seconds)
        for name, seconds in (("a", 86400), ("b", 0), ("c", 10 * 86400))
    ]

    spans = [one.expires - one.created for one in kept if one.expires]
    assert spans == [day, 2 * day, 2 * day]


def test_sweeping_removes_what_expired_and_what_nobody_names(stage: Stage, data_dir: Path) -> None:
    push(stage, "short", b"x", expire_s=60)
    push(stage, "long", b"x", expire_s=86400)
    artifacts.add(stage, "never", UPLOAD, 0, b"x", None)
    now = timezone.now()

    artifacts.sweep(now + timedelta(hours=2))
    assert [one.path for one in artifacts.found(stage.build_id)] == ["long"]
    assert len(files(data_dir / "artifacts")) == 2

    artifacts.sweep(now + timedelta(days=3))
    assert files(data_dir / "artifacts") == []


def test_files_of_a_deleted_build_go(stage: Stage, data_dir: Path) -> None:
    push(stage, "a", b"x")
    stage.build.delete()

    artifacts.sweep(timezone.now() + timedelta(hours=2))

    assert files(data_dir / "artifacts") == []
