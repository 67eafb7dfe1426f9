"""Users: oneself, and everybody for administrators.

Source: reference server, section 1.1.
"""

from __future__ import annotations

import re
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import permissions, secrets
from builds.api import documents
from builds.api.base import Bad, Missing, View
from builds.api.shapes import BUILD, REPO, USER, of_model
from builds.models import Build, Perm, Repo, User

_LOGIN: Final = re.compile(r"[.\w-]+", re.ASCII)
_MAX_LOGIN: Final = 50
_RECENT: Final = 25
_USER = USER.serializer
_REPO = REPO.serializer


class UserChange(serializers.Serializer[Any]):
    """What one may change of oneself."""

    email = serializers.EmailField(required=False, allow_blank=True)


class UserInput(serializers.Serializer[Any]):
    """A user as an administrator makes one."""

    login = serializers.CharField(allow_blank=True)
    admin = serializers.BooleanField(required=False)
    machine = serializers.BooleanField(required=False)
    token = serializers.CharField(required=False, allow_blank=True, max_length=200)


class UserUpdate(serializers.Serializer[Any]):
    """What an administrator may change of a user."""

    admin = serializers.BooleanField(required=False)
    active = serializers.BooleanField(required=False)


class Self(View):
    """Who the token belongs to."""

    @extend_schema(responses=_USER)
    def get(self, _request: Request) -> Response:
        """The caller."""
        return Response(of_model(USER, self.user()))

    @extend_schema(request=UserChange, responses=_USER)
    def patch(self, _request: Request) -> Response:
        """Change one's address."""
        user = self.user()
        user.email = self.read(UserChange).get("email", user.email)
        user.save(update_fields=["email"])
        return Response(of_model(USER, user))


class Token(View):
    """The caller's API token."""

    @extend_schema(request=None, responses=_USER, parameters=[OpenApiParameter("rotate", bool)])
    def post(self, _request: Request) -> Response:
        """Show the token; `rotate=true` makes a new one and the old one worthless."""
        user = self.user()
        token = secrets.user_token(user, rotate=self.flag("rotate"))
        return Response({**of_model(USER, user), "token": token})


class OwnRepos(View):
    """The repos the caller sees."""

    @extend_schema(responses=_REPO(many=True), parameters=[OpenApiParameter("latest", bool)])
    def get(self, _request: Request) -> Response:
        """All of them by slug, inactive ones too; `latest=true` adds each one's newest build."""
        rows = REPO.all(permissions.visible(self.user()).order_by("slug"))
        return Response(documents.with_newest_builds(rows) if self.flag("latest") else rows)

    @extend_schema(
        request=None,
        responses={200: _REPO(many=True), 204: None},
        parameters=[OpenApiParameter("async", bool)],
    )
    def post(self, _request: Request) -> Response:
        """Synchronize with the forge. Repos registered by their address need none."""
        rows = permissions.visible(self.user()).order_by("slug")
        return Response(status=204) if self.flag("async") else Response(REPO.all(rows))


class OwnBuilds(View):
    """The newest builds of the repos the caller sees."""

    @extend_schema(responses=_REPO(many=True))
    def get(self, _request: Request) -> Response:
        """25 repos with their `build`, newest first."""
        builds = Build.objects.filter(repo__in=permissions.visible(self.user()))
        newest = builds.order_by("-id")[:_RECENT]
        return Response(documents.feed(BUILD.all(newest)))


class Users(View):
    """Everybody."""

    @extend_schema(responses=_USER(many=True))
    def get(self, _request: Request) -> Response:
        """All users by login."""
        self.root()
        return Response(USER.all(User.objects.order_by("username")))

    @extend_schema(request=UserInput, responses=_USER)
    def post(self, _request: Request) -> Response:
        """Make a user. A machine's token is in the answer, and nowhere else."""
        self.root()
        given = self.read(UserInput)
        login = given.get("login", "")
        if not 1 <= len(login) <= _MAX_LOGIN:
            raise Bad("Invalid username length")
        if not _LOGIN.fullmatch(login):
            raise Bad("Invalid character in username")
        with transaction.atomic():
            user, new = User.objects.get_or_create(username=login)
            if not new:
                raise Bad("the user exists already")
            user.machine = given.get("machine", False)
            user.is_superuser = user.is_staff = given.get("admin", False)
            user.set_unusable_password()
            user.save()
            token = secrets.give_token(user, given.get("token", ""))
        made = of_model(USER, user)
        return Response({**made, "token": token} if user.machine else made)


class OneUser(View):
    """Somebody."""

    @extend_schema(responses=_USER)
    def get(self, _request: Request, login: str) -> Response:
        """A user by login or id."""
        self.root()
        return Response(of_model(USER, self._find(login)))

    @extend_schema(request=UserUpdate, responses=_USER)
    def patch(self, _request: Request, login: str) -> Response:
        """Block or unblock a user, or make him an administrator. Blocked ones are none."""
        self.root()
        user, given = self._find(login), self.read(UserUpdate)
        user.is_active = given.get("active", user.is_active)
        admin = given.get("admin", user.is_superuser) and user.is_active
        user.is_superuser = user.is_staff = admin
        with transaction.atomic():
            user.save(update_fields=["is_active", "is_superuser", "is_staff"])
            if not user.is_active:
                _hand_over(user)
        return Response(of_model(USER, user))

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, login: str) -> Response:
        """Remove a user; his repos go to another of their administrators."""
        self.root()
        user = self._find(login)
        with transaction.atomic():
            _hand_over(user)
            user.delete()
        return Response(status=204)

    def _find(self, login: str) -> User:
        user = User.objects.filter(username=login).first()
        if user is None and login.isdecimal() and len(login) < 19:
            user = User.objects.filter(pk=int(login)).first()
        if user is None:
            raise Missing
        return user


class UserRepos(View):
    """What somebody sees."""

    @extend_schema(responses=_REPO(many=True))
    def get(self, _request: Request, login: str) -> Response:
        """The repos a user sees, by slug."""
        self.root()
        user = User.objects.filter(username=login).first()
        if user is None:
            raise Missing
        return Response(REPO.all(permissions.visible(user).order_by("slug")))


class RotateToken(View):
    """A new token for somebody."""

    @extend_schema(request=None, responses=_USER)
    def post(self, _request: Request, login: str) -> Response:
        """Replace a user's token; the new one is in the answer's `message` and `token`."""
        self.root()
        user = User.objects.filter(username=login).first()
        if user is None:
            raise Missing
        token = secrets.user_token(user, rotate=True)
        return Response({**of_model(USER, user), "token": token, "message": token})


def _hand_over(user: User) -> None:
    """Give a user's repos to another of their administrators, else to nobody."""
    owned: QuerySet[Repo] = Repo.objects.filter(owner=user)
    for repo in owned:
        others = Perm.objects.filter(repo=repo, admin=True, user__is_active=True)
        other = others.exclude(user=user).order_by("id").first()
        repo.owner = other.user if other else None
        repo.save(update_fields=["owner"])
