"""Registering repositories by their git address, where no forge lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.db.models import Q

from builds.forges import forge
from builds.forges.base import Source
from builds.models import Repo, User, new_key
from builds.secrets import seal
from pipeline.errors import UserError

#: First parts of this server's own addresses: no repo's namespace.
OWN_ADDRESSES: Final = frozenset(
    {"admin", "account", "agent", "agents", "api", "login", "logout", "static", "ws", "."}
)
_NAME: Final = re.compile(r"[\w.+-]+", re.ASCII)
_SCP: Final = re.compile(r"[\w.-]+@[\w.-]+:(?!//)(?P<path>.+)")
_SCHEMES: Final = ("http", "https", "ssh", "git", "file")
_TRIES: Final = 1000


class BadAddress(UserError):
    """A git address, or a name for it, that cannot be registered."""

    code = "repo:address"


class NameTaken(UserError):
    """Another repository has this name already."""

    code = "repo:name-taken"


@dataclass(frozen=True, slots=True)
class Registration:
    """What a person says of a repository; all but the address may be empty."""

    url: str
    slug: str = ""
    default_branch: str = ""
    visibility: str = "private"
    trusted: bool = False


def register(wanted: Registration, owner: User) -> tuple[Repo, bool]:
    """The active repo of a git address, and whether it is new.

    An address that is here already keeps its repo. Without a slug one is made from the address.
    Raises: BadAddress, NameTaken; ForgeError where the address does not answer.
    """
    url = check_address(wanted.url)
    found = Repo.objects.filter(Q(git_http_url=url) | Q(git_ssh_url=url)).order_by("id").first()
    if found is not None:
        if not found.active:
            activate(found, owner)
        return found, False
    slug = check_slug(wanted.slug) if wanted.slug else _free(check_slug(slug_of(url)))
    if Repo.objects.filter(slug=slug).exists():
        raise NameTaken(f"{slug} is here already, with another address")
    namespace, _, name = slug.partition("/")
    ssh = bool(_SCP.fullmatch(url)) or url.startswith("ssh://")
    branch = wanted.default_branch or forge("git").default_branch(Source(slug, url))
    repo = Repo.objects.create(
        owner=owner,
        namespace=namespace,
        name=name,
        slug=slug,
        git_http_url="" if ssh else url,
        git_ssh_url=url if ssh else "",
        link=url.removesuffix(".git") if url.startswith(("http://", "https://")) else "",
        default_branch=branch,
        private=wanted.visibility == "private",
        visibility=wanted.visibility,
        trusted=wanted.trusted,
        signer_sealed=seal(new_key()),
        secret_sealed=seal(new_key()),
    )
    return repo, True


def activate(repo: Repo, owner: User) -> None:
    """Let a repo build, with `owner` as its owner.

    Source: reference server, section 1.2 (enable).
    """
    repo.owner, repo.active = owner, True
    repo.config_path = repo.config_path or ".drone.yml"
    repo.timeout_min = repo.timeout_min or 60
    repo.signer_sealed = repo.signer_sealed or seal(new_key())
    repo.secret_sealed = repo.secret_sealed or seal(new_key())
    repo.version += 1
    repo.save()


def check_address(url: str) -> str:
    """The address, if git may understand it and it carries no password. Raises: BadAddress."""
    url = url.strip()
    if not url or url.startswith("-") or any(char.isspace() for char in url):
        raise BadAddress("this is not an address that git understands")
    if url.startswith("/"):
        return f"file://{url}"
    if _SCP.fullmatch(url):
        return url
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.path:
        raise BadAddress("expected https://, ssh://, git@host:..., file:// or an absolute path")
    if parts.password:
        raise BadAddress("leave the password out of the address; it would be shown to everyone")
    return url


def check_slug(slug: str) -> str:
    """`owner/name`, if it is one that this server's addresses leave free. Raises: BadAddress."""
    owner, _, name = slug.partition("/")
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name)) or owner in OWN_ADDRESSES:
        raise BadAddress(f"{slug!r}: expected owner/name of letters, digits, dots, - and _")
    return slug


def slug_of(url: str) -> str:
    """`owner/name` from the end of a git address; a lone name gets the owner `local`."""
    scp = _SCP.fullmatch(url)
    path = scp["path"] if scp else urlsplit(url).path
    parts = [part for part in path.split("/") if part and part != ".git"]
    parts = [re.sub(r"[^\w.+-]", "-", part, flags=re.ASCII) for part in parts]
    if not parts:
        return ""
    name = parts[-1].removesuffix(".git")
    remote = bool(scp) or urlsplit(url).scheme not in ("", "file")
    owner = parts[-2] if remote and len(parts) > 1 else "local"
    return f"{owner}/{name}"


def _free(slug: str) -> str:
    """This slug, or with the first number that makes it free."""
    taken = set(Repo.objects.filter(slug__startswith=slug).values_list("slug", flat=True))
    numbered = (slug if n == 1 else f"{slug}-{n}" for n in range(1, _TRIES))
    return next((one for one in numbered if one not in taken), slug)


def refresh(repo: Repo) -> None:
    """Read what the forge knows of a repo. Raises: ForgeError."""
    source = Source(repo.slug, repo.git_http_url or repo.git_ssh_url)
    repo.default_branch = forge(repo.scm).default_branch(source)
    repo.version += 1
    repo.save(update_fields=["default_branch", "version", "updated"])
