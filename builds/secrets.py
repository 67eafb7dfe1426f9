"""Sealing at rest, tokens, and which secrets a stage gets.

Sealed text is Fernet of the first key in `settings.SECRET_KEYS`; older keys still open it. Tokens
are never stored: a row keeps the SHA-256 and a short prefix of that to be found by.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from builds.models import Build, LoginLink, Repo, Secret, User, new_key
from builds.rows import Rows
from pipeline.errors import PlatformError

LOGIN_LINK_LIFE = timedelta(minutes=30)
PULL_REQUEST = "pull_request"
_USERS = Rows(
    {"u": User}, f"FROM {User._meta.db_table} u WHERE u.token_sha256 = %s AND u.is_active = %s"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A new token: `text` is shown once, the rest is stored."""

    text: str = field(repr=False)
    prefix: str
    sha256: str


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str | bytes, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def seal(text: str) -> str:
    """Encrypt text for a `*_sealed` column."""
    return seal_bytes(text.encode()).decode()


def seal_bytes(data: bytes) -> bytes:
    """Encrypt bytes that pass through where others could read them."""
    return _fernet(tuple(settings.SECRET_KEYS)).encrypt(data)


def unseal_bytes(sealed: bytes) -> bytes:
    """What was sealed. Raises: PlatformError if none of the keys opens it."""
    try:
        return _fernet(tuple(settings.SECRET_KEYS)).decrypt(sealed)
    except InvalidToken as fault:
        raise PlatformError(
            "what was sealed cannot be opened: it was written under another secret key"
        ) from fault


def unseal(sealed: str) -> str:
    """The text of a `*_sealed` column; empty for an empty one.

    Raises: PlatformError if none of the keys opens it.
    """
    if not sealed:
        return ""
    try:
        return _fernet(tuple(settings.SECRET_KEYS)).decrypt(sealed.encode()).decode()
    except InvalidToken as fault:
        raise PlatformError(
            "a stored secret cannot be decrypted: it was written under another secret key"
        ) from fault


def hash_token(text: str) -> str:
    """SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def identify(text: str) -> Token:
    """What to store of a token that somebody else chose."""
    digest = hash_token(text)
    return Token(text, digest[:12], digest)


def new_token(prefix: str) -> Token:
    """A token of 256 random bits whose text begins with `prefix` and an underscore."""
    return identify(f"{prefix}_{random.token_urlsafe(32)}")


def matches(sha256: str, text: str) -> bool:
    """Whether `text` is the token with this hash, compared in constant time."""
    return hmac.compare_digest(sha256, hash_token(text))


def user_token(user: User, rotate: bool = False) -> str:
    """The user's API token; made at the first call, replaced where `rotate`.

    Source: Drone's tokens are 32 random characters.
    """
    if user.token_sealed and not rotate:
        return unseal(user.token_sealed)
    text = new_key()
    user.token_sealed, user.token_sha256 = seal(text), hash_token(text)
    user.save(update_fields=["token_sealed", "token_sha256"])
    return text


def give_token(user: User, text: str = "") -> str:
    """Give a user this API token, chosen by an administrator; a new one where it is empty."""
    if not text:
        return user_token(user, rotate=True)
    user.token_sealed, user.token_sha256 = seal(text), hash_token(text)
    user.save(update_fields=["token_sealed", "token_sha256"])
    return text


def user_by_token(text: str) -> User | None:
    """The active user whose API token this is."""
    if not text:
        return None
    found = _USERS.first(hash_token(text), True)
    return found[0] if found else None


def login_link(user: User) -> str:
    """The key of a new one-time login address, good for half an hour."""
    key = random.token_urlsafe(32)
    LoginLink.objects.create(
        user=user, key_sha256=hash_token(key), expires=timezone.now() + LOGIN_LINK_LIFE
    )
    return key


def use_login_link(key: str) -> User | None:
    """The user a login key belongs to; a second use, or one too late, gives None."""
    now = timezone.now()
    links = LoginLink.objects.filter(key_sha256=hash_token(key))
    if not links.filter(used=None, expires__gt=now, user__is_active=True).update(used=now):
        return None
    return User.objects.get(loginlink__key_sha256=hash_token(key))


def repo_secret(repo: Repo) -> str:
    """The repo's own 32 characters that sign and encrypt pipeline files; made at the first call."""
    return _own_key(repo, "secret_sealed")


def repo_signer(repo: Repo) -> str:
    """The repo's own 32 characters that prove webhooks; made at the first call."""
    return _own_key(repo, "signer_sealed")


def _own_key(repo: Repo, column: str) -> str:
    """Whoever comes first makes it: what was signed with a key stays signed."""
    if not getattr(repo, column):
        Repo.objects.filter(pk=repo.pk, **{column: ""}).update(**{column: seal(new_key())})
        repo.refresh_from_db(fields=[column])
    return unseal(getattr(repo, column))


def stage_secrets(build: Build, names: Iterable[str]) -> dict[str, str]:
    """The values of the stored secrets that a build may have, by the names it asked for.

    The repo's win over its namespace's; names are compared ignoring case; a pull request gets only
    those marked for pull requests. Source: reference pipeline format, section 7.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(name.lower(), []).append(name)
    if not wanted:
        return {}
    rows = Secret.objects.filter(
        Q(repo=build.repo_id) | Q(repo=None, namespace=build.repo.namespace)
    ).order_by("repo_id")
    if build.event == PULL_REQUEST:
        rows = rows.filter(pull_request=True)
    found: dict[str, str] = {}
    own: set[str] = set()
    for row in rows:
        key = row.name.lower()
        if key not in wanted or (row.repo_id is None and key in own):
            continue
        value = unseal(row.data_sealed)
        if value:
            found |= dict.fromkeys(wanted[key], value)
            own |= {key} if row.repo_id is not None else set()
    return found


def may_open_encrypted(build: Build) -> bool:
    """Whether a build may have what the pipeline file itself carries encrypted.

    Not a pull request, of any repository, to a public repo. Source: reference pipeline format,
    section 7.
    """
    is_public = build.repo.visibility == "public"
    return not (is_public and build.event == PULL_REQUEST and build.source_repo)
