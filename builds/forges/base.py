"""What the server asks of a forge. No forge touches the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import UserError


class ForgeError(UserError):
    """The forge cannot give what was asked; the message is one sentence for a person."""

    code = "forge:error"


class NotFound(ForgeError):
    """The repository, ref, commit or file does not exist."""

    code = "forge:not-found"


class Unreachable(ForgeError):
    """The forge does not answer, or not in time; worth another try."""

    code = "forge:unreachable"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repository is: what a forge has to know of it."""

    slug: str
    url: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. Author names come from the commit itself, the login from a forge that knows."""

    sha: str
    message: str = ""
    author_name: str = ""
    author_email: str = ""
    author_login: str = ""
    author_avatar: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit and one file of it; `text` is None where the file is missing."""

    commit: Commit
    text: str | None


class Forge(Protocol):
    """Reads of one kind of forge. Every verb may raise `NotFound` and `Unreachable`."""

    #: Whether the forge shows commit statuses.
    statuses: bool

    def snapshot(self, source: Source, rev: str, path: str) -> Snapshot:
        """A commit (of a branch's full ref, a tag or a sha) and a file of it, in one go."""
        ...

    def commit(self, source: Source, rev: str) -> Commit:
        """The commit a full ref or sha names."""
        ...

    def file(self, source: Source, sha: str, path: str) -> str:
        """A file's text at a commit."""
        ...

    def folder(self, source: Source, sha: str, path: str) -> tuple[str, ...]:
        """Names of the files (not folders) in a folder at a commit; empty where there is none."""
        ...

    def changed(self, source: Source, before: str, after: str) -> tuple[str, ...] | None:
        """Paths that differ between two commits (an empty `before`: that `after` itself changed).

        None where nobody can tell, such as for a `before` that no longer exists.
        """
        ...

    def branch_head(self, source: Source, branch: str) -> str:
        """The sha a branch points to."""
        ...

    def default_branch(self, source: Source) -> str:
        """The branch that HEAD names."""
        ...
