"""The forges by the name that `Repo.scm` holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from builds.forges.base import Forge, Source
from builds.forges.git import Git

_FORGES: Final[dict[str, Callable[[], Forge]]] = {"git": Git}


class UnknownForge(LookupError):
    """A repo names a forge this server does not have."""


def forge(scm: str) -> Forge:
    """The forge of repos whose `scm` this is.

    Raises: UnknownForge.
    """
    try:
        return _FORGES[scm or "git"]()
    except KeyError as fault:
        raise UnknownForge(f"no forge is called {scm!r}") from fault


def has_statuses(scm: str) -> bool:
    """Whether commits of such repos can be given a status; never for an unknown forge."""
    return scm in _FORGES and _FORGES[scm]().statuses


__all__ = ["Forge", "Source", "UnknownForge", "forge", "has_statuses"]
