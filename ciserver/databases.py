"""Which databases there are: PostgreSQL, or two SQLite files so that log writes delay nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ciserver.env import Env

LOG_MODELS = frozenset({"steplog", "logbatch"})
_SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=20000;",
}


def configure(env: Env) -> dict[str, dict[str, Any]]:
    """Django's DATABASES for `CISERVER_DATABASE_URL` (empty: SQLite in the data dir).

    Raises: ValueError for a URL that is not `postgres://user:password@host:port/name`.
    """
    if not env.database_url:
        return {
            "default": _sqlite(env.data_dir / "ciserver.sqlite3"),
            "logs": _sqlite(env.data_dir / "logs.sqlite3"),
        }
    url = urlsplit(env.database_url)
    if url.scheme not in ("postgres", "postgresql"):
        raise ValueError(
            "CISERVER_DATABASE_URL: expected postgres://user:password@host:port/name, "
            f"got the scheme {url.scheme!r}"
        )
    return {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path.lstrip("/"),
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": url.hostname or "",
            "PORT": url.port or "",
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"connect_timeout": 5},
        }
    }


def _sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "CONN_MAX_AGE": None,
        "OPTIONS": dict(_SQLITE_OPTIONS),
        # a file, not memory: tests with threads need real locks
        "TEST": {"NAME": path.with_name(f"test-{path.name}")},
    }


class LogRouter:
    """Sends the two log tables to the database `logs` where there is one."""

    def db_for_read(self, model: Any, **_hints: Any) -> str | None:
        return self._home(model._meta.app_label, model._meta.model_name)

    db_for_write = db_for_read

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **_hints: Any
    ) -> bool:
        return db == (self._home(app_label, model_name) or "default")

    def _home(self, app_label: str, model_name: str | None) -> str | None:
        from django.conf import settings

        if app_label == "builds" and model_name in LOG_MODELS and "logs" in settings.DATABASES:
            return "logs"
        return None
