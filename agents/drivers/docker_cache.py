"""Keeps the engine's images within bounds of age and size, longest unused first.

The engine does not know when an image was last used, so the driver notes it, in a file that
survives the agent. Images of running or stopped containers are never touched.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agents.drivers import docker_leftovers as leftovers
from agents.drivers.base import DriverError
from agents.drivers.docker_engine import Engine
from agents.expiry import to_remove
from agents.image_names import expand, matches_image
from agents.options import Options

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the engine. `used` is unix seconds: when a step last ran in it."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    used: float


class Usage:
    """When images were last used, by full name. Any thread."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            self._times = {str(k): float(v) for k, v in json.loads(file.read_text()).items()}

    def note(self, image: str) -> None:
        """A step starts in an image."""
        with self._lock:
            self._times[expand(image)] = self._clock()

    def last(self, names: Iterable[str]) -> float:
        """When one of these names was last used; what was never seen counts as used now."""
        with self._lock:
            now = self._clock()
            return max((self._times.setdefault(expand(name), now) for name in names), default=0.0)

    def save(self, known: Iterable[str]) -> None:
        """Remember what is known of these names, and forget the rest."""
        names = {expand(name) for name in known}
        with self._lock:
            self._times = {name: at for name, at in self._times.items() if name in names}
            text = json.dumps(self._times)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._file)


def clean(engine: Engine, options: Options, usage: Usage, now: float | None = None) -> list[str]:
    """Remove what has expired and what the bounds say; returns names of images removed.

    Never raises: what cannot be removed is logged.
    """
    leftovers.sweep(engine, owner="")
    try:
        images = [_image(one, usage) for one in engine.images()]
        in_use = engine.image_ids_in_use()
    except DriverError as fault:
        log.warning("docker.clean-failed", reason=str(fault))
        return []

    def keep(image: Image) -> bool:
        return image.id in in_use or any(
            matches_image(name, pattern) for name in image.names for pattern in options.clean_ignore
        )

    chosen = to_remove(
        images,
        time.time() if now is None else now,
        age_s=options.clean_age,
        size_bytes=options.clean_size,
        keep=keep,
    )
    removed = [name for image in chosen for name in _remove(engine, image)]
    usage.save(name for image in images if image not in chosen for name in image.names)
    return removed


def _image(found: Mapping[str, object], usage: Usage) -> Image:
    tags = found.get("RepoTags") or ()
    names = tuple(str(name) for name in tags if name != "<none>:<none>")  # type: ignore[attr-defined]
    size = found.get("Size")
    return Image(str(found["Id"]), names, size if isinstance(size, int) else 0, usage.last(names))


def _remove(engine: Engine, image: Image) -> list[str]:
    """Remove all names of an image, which removes it; one without names goes by its id."""
    removed = []
    for name in image.names or (image.id,):
        try:
            engine.remove_image(name)
        except DriverError as fault:
            log.info("docker.image-stays", image=name, reason=str(fault))
        else:
            log.info("docker.image-removed", image=name, size=image.size_bytes)
            removed.append(name)
    return removed
