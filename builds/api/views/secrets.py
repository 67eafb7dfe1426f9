"""Secrets of repos and of whole namespaces. Values go in and never come out.

Source: reference server, section 1.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.base import Bad, Conflict, Missing, View
from builds.api.shapes import SECRET, of_model
from builds.models import Secret
from builds.secrets import seal

_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)
_SECRET = SECRET.serializer


class SecretInput(serializers.Serializer[Any]):
    """A secret; `pull_request` says whether builds of pull requests get it."""

    name = serializers.CharField(max_length=250, allow_blank=True)
    data = serializers.CharField(allow_blank=True, trim_whitespace=False, write_only=True)  # type: ignore[assignment]  # DRF takes it off
    pull_request = serializers.BooleanField(required=False)
    pull_request_push = serializers.BooleanField(required=False)


class SecretUpdate(serializers.Serializer[Any]):
    """What of a secret may be changed."""

    data = serializers.CharField(allow_blank=True, trim_whitespace=False, write_only=True)  # type: ignore[assignment]  # DRF takes it off
    pull_request = serializers.BooleanField()
    pull_request_push = serializers.BooleanField()


def made(given: Mapping[str, Any], **home: Any) -> Secret:
    """Store a new secret. Raises: Bad, with Drone's words; Conflict where there is one."""
    name, data = given.get("name", ""), given.get("data", "")
    if not _NAME.fullmatch(name):
        raise Bad("Invalid Secret Name")
    if not data:
        raise Bad("Invalid Secret Value")
    flags = {key: given.get(key, False) for key in ("pull_request", "pull_request_push")}
    try:
        with transaction.atomic():
            return Secret.objects.create(name=name, data_sealed=seal(data), **flags, **home)
    except IntegrityError as fault:
        raise Conflict(f"there is a secret {name} already") from fault


def changed(secret: Secret, given: Mapping[str, Any]) -> Secret:
    """Change a stored secret; what is not given stays."""
    if given.get("data"):
        secret.data_sealed = seal(given["data"])
    secret.pull_request = given.get("pull_request", secret.pull_request)
    secret.pull_request_push = given.get("pull_request_push", secret.pull_request_push)
    secret.save()
    return secret


def one(rows: QuerySet[Secret], name: str) -> Secret:
    """The secret of this name. Raises: Missing."""
    found = rows.filter(name=name).first()
    if found is None:
        raise Missing
    return found


class RepoSecrets(View):
    """The secrets of a repo."""

    @extend_schema(responses=_SECRET(many=True))
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """All of them, by name."""
        repo = self.repo(owner, name, "write")
        return Response(SECRET.all(Secret.objects.filter(repo=repo).order_by("name")))

    @extend_schema(request=SecretInput, responses=_SECRET)
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Add one."""
        repo = self.repo(owner, name, "write")
        return Response(of_model(SECRET, made(self.read(SecretInput), repo=repo)))


class RepoSecret(View):
    """A secret of a repo."""

    @extend_schema(responses=_SECRET)
    def get(self, _request: Request, owner: str, name: str, secret: str) -> Response:
        """The secret without its value."""
        return Response(of_model(SECRET, self._find(owner, name, secret)))

    @extend_schema(request=SecretUpdate, responses=_SECRET)
    def patch(self, _request: Request, owner: str, name: str, secret: str) -> Response:
        """Change the value, or who gets it."""
        found = self._find(owner, name, secret)
        return Response(of_model(SECRET, changed(found, self.read(SecretUpdate))))

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, owner: str, name: str, secret: str) -> Response:
        """Remove it."""
        self._find(owner, name, secret).delete()
        return Response(status=204)

    def _find(self, owner: str, name: str, secret: str) -> Secret:
        return one(Secret.objects.filter(repo=self.repo(owner, name, "write")), secret)


class AllSecrets(View):
    """The secrets of all namespaces."""

    @extend_schema(responses=_SECRET(many=True))
    def get(self, _request: Request) -> Response:
        """All of them."""
        self.root()
        rows = Secret.objects.filter(repo=None).order_by("namespace", "name")
        return Response(SECRET.all(rows))


class OrgSecrets(View):
    """The secrets of a namespace."""

    @extend_schema(responses=_SECRET(many=True))
    def get(self, _request: Request, namespace: str) -> Response:
        """All of them, by name."""
        self.member(namespace)
        rows = Secret.objects.filter(repo=None, namespace=namespace)
        return Response(SECRET.all(rows.order_by("name")))

    @extend_schema(request=SecretInput, responses=_SECRET)
    def post(self, _request: Request, namespace: str) -> Response:
        """Add one."""
        self.member(namespace, admin=True)
        return Response(of_model(SECRET, made(self.read(SecretInput), namespace=namespace)))


class OrgSecret(View):
    """A secret of a namespace."""

    @extend_schema(responses=_SECRET)
    def get(self, _request: Request, namespace: str, name: str) -> Response:
        """The secret without its value."""
        self.member(namespace)
        return Response(of_model(SECRET, self._find(namespace, name)))

    @extend_schema(request=SecretUpdate, responses=_SECRET)
    def patch(self, _request: Request, namespace: str, name: str) -> Response:
        """Change the value, or who gets it."""
        self.member(namespace, admin=True)
        found = self._find(namespace, name)
        return Response(of_model(SECRET, changed(found, self.read(SecretUpdate))))

    @extend_schema(exclude=True)
    def post(self, request: Request, namespace: str, name: str) -> Response:
        """As PATCH."""
        return self.patch(request, namespace, name)

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, namespace: str, name: str) -> Response:
        """Remove it."""
        self.member(namespace, admin=True)
        self._find(namespace, name).delete()
        return Response(status=204)

    def _find(self, namespace: str, name: str) -> Secret:
        return one(Secret.objects.filter(repo=None, namespace=namespace), name)
