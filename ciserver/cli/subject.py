"""What a person means by a path, a slug or `owner/name#7`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ciserver.cli.client import Client
from ciserver.cli.terminal import Refused

_BUILD = re.compile(r"(?:(?P<slug>[^#\s]+/[^#\s]+)[#/ ])?#?(?P<number>\d+)")
_URL = re.compile(r"[a-z+]+://|[^/\s]+@[^/\s]+:")


@dataclass(frozen=True, slots=True)
class Subject:
    """What to build. `url` is empty for a slug; a local repository has its HEAD's facts."""

    url: str = ""
    slug: str = ""
    branch: str = ""
    commit: str = ""
    dirty: bool = False


def subject(text: str) -> Subject:
    """A folder, a git address or a slug.

    Raises: Refused for a folder that is no repository, or one without commits.
    """
    if _URL.match(text):
        return Subject(url=text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _local(folder)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", text) and not text.startswith((".", "/")):
        return Subject(slug=text)
    raise Refused(f"{text}: there is no such folder, and it is no owner/name of a repository")


def _local(folder: Path) -> Subject:
    top = _git(folder, "rev-parse", "--show-toplevel") or _git(folder, "rev-parse", "--git-dir")
    if not top:
        raise Refused(f"{folder.resolve()} is not a git repository")
    root = (folder / top).resolve()
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not commit:
        raise Refused(f"{root} has no commits: there is nothing to build")
    return Subject(
        url=root.as_uri(),
        branch=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD"),
        commit=commit,
        dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
    )


def _git(folder: Path, *arguments: str) -> str:
    """The output of a git command, or nothing if it fails."""
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("git is not installed") from None
    return answer.stdout.strip() if answer.returncode == 0 else ""


def build_number(client: Client, text: str) -> tuple[str, int]:
    """Slug and number of `owner/name#7`, `owner/name/7`, or `7` where there is only one repo.

    Raises: Refused.
    """
    match = _BUILD.fullmatch(text)
    if match is None:
        raise Refused(f"{text}: expected a build such as octocat/hello#7")
    slug = match["slug"]
    if slug is None:
        slug = _only_repo(client)
    return slug, int(match["number"])


def _only_repo(client: Client) -> str:
    slugs = [str(repo["slug"]) for repo in client.repos() if repo["active"]]
    if len(slugs) != 1:
        known = ", ".join(slugs) or "none"
        raise Refused(f"say which repository, as in owner/name#7 (there are: {known})")
    return slugs[0]
