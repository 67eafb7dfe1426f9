"""The store of files that stages push: for later stages of the build, and for people.

The files lie below the data dir, a folder per build. They come and go in bounded parts, so that
neither side holds one in memory. A row names a file that is complete; what no row names is removed
by `sweep`, so a crash at any point leaves nothing behind for long.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets as random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, Sum
from django.utils import timezone

from builds.models import Artifact, Build, Stage
from pipeline.errors import PlatformError, UserError
from pipeline.wire import MAX_PART_BYTES

log = structlog.get_logger(__name__)

MAX_PATH_CHARS: Final = 1000
MAX_FILES: Final = 10_000
PIECE_BYTES: Final = 256 * 1024
#: An upload that nobody added to for so long is given up.
STALE: Final = timedelta(days=2)
_UPLOADS: Final = "uploads"
_UPLOAD: Final = re.compile(r"[0-9a-f]{16}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PER_QUERY: Final = 500


class ArtifactError(UserError):
    """An artifact that cannot be pushed or pulled."""

    code = "artifacts:malformed"


class ArtifactGone(PlatformError):
    """The store does not have a file that a row names."""


@dataclass(frozen=True, slots=True)
class End:
    """What the last part of an upload says of the whole. `expire_s` 0: as the server is set."""

    size: int
    sha256: str
    mode: int = 0o644
    expire_s: int = 0


def clean(path: str) -> str:
    """A path as artifacts are named: relative, without empty parts or steps up.

    Raises: ArtifactError.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    found = "/".join(parts)
    if path.startswith("/") or not parts or ".." in parts:
        raise ArtifactError(f"{path!r} is no name of an artifact: expected a relative path")
    if len(found) > MAX_PATH_CHARS or _CONTROL.search(found) or not _is_text(found):
        raise ArtifactError("a name of an artifact has up to 1000 printable characters")
    return found


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- in -------------------------------------------------------------------------------------------


def add(stage: Stage, path: str, upload: str, offset: int, data: bytes, end: End | None) -> int:
    """Take in a part; with `end` it is the last one. Returns where the next part begins.

    A part that is not at the end of what is there changes nothing; it can be sent again.

    Raises: ArtifactError for a wrong name, a wrong sum, or more than a build may keep.
    """
    name = clean(path)
    if not _UPLOAD.fullmatch(upload) or len(data) > MAX_PART_BYTES:
        raise ArtifactError("expected an upload of 16 digits, and a part of limited size")
    draft = _root() / _UPLOADS / f"{stage.pk}-{upload}"
    if end is not None and (done := _stored(stage, name, end)):
        return done
    _check_room(stage.build_id, name, offset + len(data))
    reached = _write(draft, offset, data)
    if end is not None and reached == end.size:
        _complete(stage, name, draft, end)
    return reached


def _stored(stage: Stage, path: str, end: End) -> int:
    """The size of the artifact if it is there already: the answer to a last part sent again."""
    same = {"build": stage.build_id, "stage": stage, "path": path, "sha256": end.sha256}
    return end.size if Artifact.objects.filter(size_bytes=end.size, **same).exists() else 0


def _check_room(build: int, path: str, size: int) -> None:
    others = Artifact.objects.filter(build=build).exclude(path=path)
    used = others.aggregate(bytes=Sum("size_bytes"))["bytes"] or 0
    limit = settings.ARTIFACT_LIMIT_BYTES
    if used + size > limit:
        raise ArtifactError(
            f"{path}: the artifacts of one build may take {limit / 2**20:.0f} MiB together",
            "artifacts:too-large",
        )
    if others.count() >= MAX_FILES:
        raise ArtifactError(f"a build has at most {MAX_FILES} artifacts", "artifacts:too-many")


def _write(draft: Path, offset: int, data: bytes) -> int:
    draft.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("wb" if offset == 0 else "ab") as file:
        reached = file.tell()
        if reached == offset:
            reached += file.write(data)
    return reached


def _complete(stage: Stage, path: str, draft: Path, end: End) -> None:
    """Check the file, put it in its place and let a row name it."""
    if not _SHA256.fullmatch(end.sha256) or _sum(draft) != end.sha256:
        draft.unlink()
        raise ArtifactError(f"{path}: what arrived is not what was sent", "artifacts:broken")
    key = f"{stage.build_id}/{random.token_hex(16)}"
    place = _file(key)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(place)
    now = timezone.now()
    with transaction.atomic():
        known = Artifact.objects.select_for_update().filter(build=stage.build_id, path=path)
        old = list(known.values_list("key", flat=True))
        known.delete()
        Artifact.objects.create(
            build_id=stage.build_id,
            stage=stage,
            path=path,
            size_bytes=end.size,
            sha256=end.sha256,
            mode=end.mode & 0o777,
            key=key,
            created=now,
            expires=_expiry(now, end.expire_s),
        )
    for one in old:
        _file(one).unlink(missing_ok=True)
    log.info("artifact.stored", build_id=stage.build_id, bytes=end.size)


def _sum(path: Path) -> str:
    """Its SHA-256, and that it is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expiry(now: datetime, wanted_s: int) -> datetime | None:
    """When an artifact goes: as asked, but not later than the server keeps any."""
    kept_s = settings.ARTIFACT_DAYS * 86400
    seconds = min(filter(None, (wanted_s, kept_s)), default=0)
    return now + timedelta(seconds=seconds) if seconds else None


# --- out ------------------------------------------------------------------------------------------


def found(build: Build | int, name: str = "") -> list[Artifact]:
    """The artifact of a name, or all below it; all of the build without one."""
    key = build if isinstance(build, int) else build.pk
    rows = Artifact.objects.filter(build=key).filter(
        Q(expires=None) | Q(expires__gt=timezone.now())
    )
    if name:
        path = clean(name)
        rows = rows.filter(Q(path=path) | Q(path__startswith=f"{path}/"))
    return list(rows.select_related("stage").order_by("path"))


def one(build: Build | int, path: str) -> Artifact | None:
    """The artifact of exactly this path, if there is one."""
    try:
        name = clean(path)
    except ArtifactError:
        return None
    return next((artifact for artifact in found(build, name) if artifact.path == name), None)


def part(artifact: Artifact, offset: int) -> bytes:
    """Up to a part's bytes from `offset` on. Raises: ArtifactGone."""
    try:
        with _file(artifact.key).open("rb") as file:
            return os.pread(file.fileno(), MAX_PART_BYTES, offset)
    except OSError as fault:
        raise ArtifactGone(f"{artifact.path}: {fault.strerror}") from fault


def content(artifact: Artifact) -> Iterator[bytes]:
    """The whole of an artifact, in pieces. Raises: ArtifactGone, at once and not while it runs."""
    try:
        file = _file(artifact.key).open("rb")
    except OSError as fault:
        raise ArtifactGone(f"{artifact.path}: {fault.strerror}") from fault

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    return pieces()


# --- away -----------------------------------------------------------------------------------------


def sweep(now: datetime) -> None:
    """Remove what has expired, and files that no row names any more."""
    expired = Artifact.objects.filter(expires__lte=now)
    for artifact in expired.order_by("pk")[: _PER_QUERY * 10]:
        artifact.delete()
        _file(artifact.key).unlink(missing_ok=True)
    root = _root()
    if not root.is_dir():
        return
    for draft in (root / _UPLOADS).glob("*"):
        if draft.stat().st_mtime < (now - STALE).timestamp():
            draft.unlink(missing_ok=True)
    _remove_unnamed(root, now)


def _remove_unnamed(root: Path, now: datetime) -> None:
    """Folders of builds that were deleted, or have no artifacts any more."""
    folders = {int(folder.name): folder for folder in root.iterdir() if folder.name.isdecimal()}
    keys = sorted(folders)
    for first in range(0, len(keys), _PER_QUERY):
        some = keys[first : first + _PER_QUERY]
        kept = set(Artifact.objects.filter(build__in=some).values_list("build", flat=True))
        for key in set(some) - kept:
            # a younger one may have got its first file this moment, and its row in the next
            if folders[key].stat().st_mtime < (now - timedelta(hours=1)).timestamp():
                shutil.rmtree(folders[key], ignore_errors=True)


def _root() -> Path:
    return Path(settings.DATA_DIR) / "artifacts"


def _file(key: str) -> Path:
    return _root() / str(PurePosixPath(key))
