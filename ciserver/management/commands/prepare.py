"""What a start of the server needs from the database: tables, the first user, the join token."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

from builds import secrets
from builds.models import JoinToken, User
from ciserver.embedded import keys

JOIN_TOKEN_NAME = "first"  # noqa: S105 - the name of a row


class Command(BaseCommand):
    """Prints JSON: `fresh` (nobody had used this database), `login` (a one-time path), `user`."""

    help = "migrate, make the first user and the join token if there is none"
    # they would import every page and view, which takes longer than all that is done here
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Do it; a second time changes nothing but makes a new login address."""
        try:
            _migrate()
        except OperationalError as error:
            first = str(error).strip().splitlines()[0]
            raise CommandError(f"the database does not answer: {first}") from None
        user, fresh = _first_user()
        _ensure_join_token()
        token = secrets.user_token(user)
        keys.write(settings.DATA_DIR / "keys" / "user_token", lambda: token, replace=True)
        key = secrets.login_link(user)
        answer = {"fresh": fresh, "login": f"/login/link/{key}", "user": user.username}
        self.stdout.write(json.dumps(answer))


def _migrate() -> None:
    """Bring every database up to date; asking first saves most of a second at each start."""
    for alias in connections:
        executor = MigrationExecutor(connections[alias])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", database=alias, verbosity=0, interactive=False)


def _first_user() -> tuple[User, bool]:
    """The user the terminal acts as: the first administrator. Whether it was made just now."""
    user = User.objects.filter(is_superuser=True, is_active=True).order_by("id").first()
    if user is not None:
        return user, False
    wanted = dict(item.split(":", 1) for item in settings.ENV.user_create.split(",") if ":" in item)
    user = User.objects.create_superuser(
        wanted.get("username", "admin"), machine=wanted.get("machine") == "true"
    )
    if token := wanted.get("token"):
        user.token_sealed, user.token_sha256 = secrets.seal(token), secrets.hash_token(token)
        user.save(update_fields=["token_sealed", "token_sha256"])
    return user, True


def _ensure_join_token() -> None:
    """Let the join token of the settings be the one that the row of that name stands for."""
    token = secrets.identify(settings.JOIN_TOKEN)
    JoinToken.objects.update_or_create(
        name=JOIN_TOKEN_NAME,
        defaults={"token_prefix": token.prefix, "token_sha256": token.sha256},
    )
