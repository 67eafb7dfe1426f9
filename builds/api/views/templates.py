"""Pipeline templates of namespaces.

Source: reference server, section 1.4.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import IntegrityError, transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.base import Bad, Conflict, Missing, View
from builds.api.shapes import TEMPLATE, of_model
from builds.models import Template

_EXTENSIONS: Final = (".yml", ".yaml", ".star", ".starlark", ".script", ".jsonnet")
_TEMPLATE = TEMPLATE.serializer


class TemplateInput(serializers.Serializer[Any]):
    """A template; its name's extension says which language it is."""

    name = serializers.CharField(max_length=250, allow_blank=True)
    data = serializers.CharField(allow_blank=True, trim_whitespace=False)  # type: ignore[assignment]  # DRF takes it off
    namespace = serializers.CharField(max_length=250, required=False)


class TemplateUpdate(serializers.Serializer[Any]):
    """What of a template may be changed."""

    data = serializers.CharField(trim_whitespace=False)  # type: ignore[assignment]  # DRF takes it off
    namespace = serializers.CharField(max_length=250)


class AllTemplates(View):
    """The templates of all namespaces."""

    @extend_schema(responses=_TEMPLATE(many=True))
    def get(self, _request: Request) -> Response:
        """All of them."""
        self.root()
        return Response(TEMPLATE.all(Template.objects.order_by("namespace", "name")))

    @extend_schema(exclude=True)
    def post(self, _request: Request) -> Response:
        """Add one; the namespace is in the body."""
        return Response(_made(self, self.body().get("namespace") or ""))


class Templates(View):
    """The templates of a namespace."""

    @extend_schema(responses=_TEMPLATE(many=True))
    def get(self, _request: Request, namespace: str) -> Response:
        """All of them, by name."""
        self.member(namespace)
        return Response(TEMPLATE.all(Template.objects.filter(namespace=namespace).order_by("name")))

    @extend_schema(request=TemplateInput, responses=_TEMPLATE)
    def post(self, _request: Request, namespace: str) -> Response:
        """Add one."""
        return Response(_made(self, namespace))


class OneTemplate(View):
    """A template."""

    @extend_schema(responses=_TEMPLATE)
    def get(self, _request: Request, namespace: str, name: str) -> Response:
        """The template with its text."""
        self.member(namespace)
        return Response(of_model(TEMPLATE, self._find(namespace, name)))

    @extend_schema(request=TemplateUpdate, responses=_TEMPLATE)
    def patch(self, _request: Request, namespace: str, name: str) -> Response:
        """Change its text, or move it to another namespace."""
        self.member(namespace, admin=True)
        found, given = self._find(namespace, name), self.read(TemplateUpdate)
        if "namespace" in given:
            self.member(given["namespace"], admin=True)
        found.data = given.get("data", found.data)
        found.namespace = given.get("namespace", found.namespace)
        _save(found)
        return Response(of_model(TEMPLATE, found))

    @extend_schema(exclude=True)
    def put(self, request: Request, namespace: str, name: str) -> Response:
        """As PATCH."""
        return self.patch(request, namespace, name)

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, namespace: str, name: str) -> Response:
        """Remove it."""
        self.member(namespace, admin=True)
        self._find(namespace, name).delete()
        return Response(status=204)

    def _find(self, namespace: str, name: str) -> Template:
        found = Template.objects.filter(namespace=namespace, name=name).first()
        if found is None:
            raise Missing
        return found


def _made(view: View, namespace: str) -> dict[str, Any]:
    view.member(namespace, admin=True)
    given = view.read(TemplateInput)
    name, data = given.get("name", ""), given.get("data", "")
    if not name:
        raise Bad("No Template Name Provided")
    if not data:
        raise Bad("No Template Data Provided")
    if not name.endswith(_EXTENSIONS):
        raise Bad(f"the name of a template ends in one of {', '.join(_EXTENSIONS)}")
    return of_model(TEMPLATE, _save(Template(namespace=namespace, name=name, data=data)))


def _save(template: Template) -> Template:
    try:
        with transaction.atomic():
            template.save()
    except IntegrityError as fault:
        raise Conflict(f"there is a template {template.name} already") from fault
    return template
