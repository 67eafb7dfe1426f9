"""Opens the store that settings name: one module per kind, one line here."""

from __future__ import annotations

from agents.cache.backends.base import Backend, CacheError
from agents.cache.settings import Settings


def open_backend(settings: Settings) -> Backend:
    """The store that settings name. Raises: CacheError with a sentence if it cannot be used."""
    if settings.backend == "directory":
        from agents.cache.backends.directory import Directory

        return Directory(settings.folder)
    if settings.backend == "s3":
        from agents.cache.backends.s3 import Bucket

        return Bucket(settings)
    raise CacheError(f"caches in {settings.backend} are not supported yet: use s3 or a directory")
