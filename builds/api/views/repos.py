"""Repositories, who may use them, and signing and encrypting for them.

Source: reference server, section 1.2; `POST /repos` is our own.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import encryption, removal, repos, secrets
from builds.api import documents
from builds.api.base import Missing, View
from builds.api.shapes import COLLABORATOR, REPO, Permission
from builds.models import VISIBILITIES, Perm, Repo
from pipeline import signature

_REPO = REPO.serializer
_ROOT_ONLY: Final = ("trusted", "timeout_min", "throttle", "counter")
_FLAGS: Final = (
    "protected",
    "ignore_forks",
    "ignore_pull_requests",
    "auto_cancel_pull_requests",
    "auto_cancel_pushes",
    "auto_cancel_running",
)
_MAX_COUNT: Final = 2**31 - 1


class RepoInput(serializers.Serializer[Any]):
    """A repository to register."""

    git_http_url = serializers.CharField(
        max_length=1000, help_text="https://, ssh://, git@host:, file:// or a path on the server"
    )
    slug = serializers.CharField(required=False, allow_blank=True, max_length=500)
    default_branch = serializers.CharField(required=False, allow_blank=True, max_length=250)
    visibility = serializers.ChoiceField(VISIBILITIES, required=False)
    trusted = serializers.BooleanField(required=False)


class RepoUpdate(serializers.Serializer[Any]):
    """What may be changed of a repo; the last four by system administrators only."""

    visibility = serializers.ChoiceField(VISIBILITIES)
    config_path = serializers.CharField(max_length=500)
    protected = serializers.BooleanField()
    ignore_forks = serializers.BooleanField()
    ignore_pull_requests = serializers.BooleanField()
    auto_cancel_pull_requests = serializers.BooleanField()
    auto_cancel_pushes = serializers.BooleanField()
    auto_cancel_running = serializers.BooleanField()
    trusted = serializers.BooleanField()
    timeout = serializers.IntegerField(source="timeout_min", min_value=1, max_value=_MAX_COUNT)
    throttle = serializers.IntegerField(min_value=0, max_value=_MAX_COUNT)
    counter = serializers.IntegerField(min_value=0, max_value=_MAX_COUNT)


class Text(serializers.Serializer[Any]):
    """Some text."""

    data = serializers.CharField(allow_blank=True, trim_whitespace=False)  # type: ignore[assignment]  # DRF takes it off


class Repos(View):
    """Every repo of the server."""

    @extend_schema(
        responses=_REPO(many=True),
        parameters=[OpenApiParameter("page", int), OpenApiParameter("per_page", int)],
    )
    def get(self, _request: Request) -> Response:
        """A page of all repos, by slug."""
        self.root()
        return Response(REPO.all(Repo.objects.order_by("slug")[self.page()]))

    @extend_schema(request=RepoInput, responses=_REPO)
    def post(self, _request: Request) -> Response:
        """Register a repository by its git address; the one that is here already is returned."""
        user, given = self.root(), self.read(RepoInput)
        wanted = repos.Registration(
            url=given.get("git_http_url", ""),
            slug=given.get("slug", ""),
            default_branch=given.get("default_branch", ""),
            visibility=given.get("visibility", "private"),
            trusted=given.get("trusted", False),
        )
        repo, _ = repos.register(wanted, user)
        return Response(documents.repo_for(user, repo))


class OneRepo(View):
    """A repo."""

    @extend_schema(responses=_REPO)
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """The repo, and what the caller may do with it."""
        return Response(documents.repo_for(self.caller(), self.repo(owner, name, "read")))

    @extend_schema(request=None, responses=_REPO)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Enable the repo; it is the caller's then."""
        repo = self.repo(owner, name, "admin")
        repos.activate(repo, self.user())
        return Response(documents.repo(repo.pk))

    @extend_schema(request=RepoUpdate, responses=_REPO)
    def patch(self, _request: Request, owner: str, name: str) -> Response:
        """Change settings. What only administrators may change is ignored from others."""
        repo = self.repo(owner, name, "admin")
        changes = self.read(RepoUpdate)
        if not self.user().is_superuser:
            changes = {key: value for key, value in changes.items() if key not in _ROOT_ONLY}
        if "visibility" in changes:
            changes["private"] = changes["visibility"] == "private"
        for field, value in changes.items():
            setattr(repo, field, value)
        repo.version += 1
        repo.save(update_fields=[*changes, "version", "updated"])
        return Response(documents.repo(repo.pk))

    @extend_schema(responses=_REPO, parameters=[OpenApiParameter("remove", bool)])
    def delete(self, _request: Request, owner: str, name: str) -> Response:
        """Disable the repo; `remove=true` deletes it with its builds and logs."""
        repo = self.repo(owner, name, "admin")
        if not self.flag("remove"):
            Repo.objects.filter(pk=repo.pk).update(active=False, version=F("version") + 1)
            return Response(documents.repo(repo.pk))
        document = documents.repo(repo.pk)
        removal.remove_repos(Repo.objects.filter(pk=repo.pk))
        return Response({**document, "active": False})


class Chown(View):
    """A repo's owner."""

    @extend_schema(request=None, responses=_REPO)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Make the caller the owner."""
        repo = self.repo(owner, name, "admin")
        repo.owner = self.user()
        repo.version += 1
        repo.save(update_fields=["owner", "version", "updated"])
        return Response(documents.repo(repo.pk))


class Repair(View):
    """What the forge knows of a repo."""

    @extend_schema(request=None, responses=_REPO)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Read the default branch anew."""
        repo = self.repo(owner, name, "admin")
        repos.refresh(repo)
        return Response(documents.repo(repo.pk))


class Collaborators(View):
    """Who has been given rights on a repo."""

    @extend_schema(responses=COLLABORATOR.serializer(many=True))
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """Everybody with rights of his own."""
        repo = self.repo(owner, name, "read")
        return Response(COLLABORATOR.all(Perm.objects.filter(repo=repo).order_by("user__username")))


class Collaborator(View):
    """One person's rights on a repo."""

    @extend_schema(responses=Permission)
    def get(self, _request: Request, owner: str, name: str, login: str) -> Response:
        """What he may do."""
        found = self._find(owner, name, login, "read").values("read", "write", "admin").first()
        if found is None:
            raise Missing
        return Response(found)

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, owner: str, name: str, login: str) -> Response:
        """Take his rights away."""
        self._find(owner, name, login, "admin").delete()
        return Response(status=204)

    def _find(self, owner: str, name: str, login: str, level: Any) -> Any:
        return Perm.objects.filter(repo=self.repo(owner, name, level), user__username=login)


class Sign(View):
    """Signatures of pipeline files."""

    @extend_schema(request=Text, responses=Text)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """The signature of a pipeline file under this repo's key."""
        repo = self.repo(owner, name, "write")
        text = self.read(Text).get("data", "")
        return Response({"data": signature.sign(text, secrets.repo_secret(repo))})


class Encrypt(View):
    """Secrets inside pipeline files."""

    @extend_schema(request=Text, responses=Text)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Some text encrypted with this repo's key."""
        repo = self.repo(owner, name, "write")
        text = self.read(Text).get("data", "")
        return Response({"data": encryption.encrypt(secrets.repo_secret(repo), text)})
