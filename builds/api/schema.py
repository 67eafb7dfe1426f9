"""How the API describes itself at /api/schema."""

from __future__ import annotations

import re
from typing import Any, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

_NUMBERS = frozenset({"number", "stage", "step"})


class Message(serializers.Serializer[Any]):
    """What went wrong."""

    message = serializers.CharField()
    code = serializers.CharField(required=False)


class Schema(AutoSchema):
    """Names operations by their address, types path parameters, and adds the error answer."""

    def get_operation_id(self) -> str:
        words = re.findall(r"[\w.-]+", self.path.removeprefix("/api"))
        return "_".join([self.method.lower(), *words]).replace(".", "_").replace("-", "_")

    def get_override_parameters(self) -> list[Any]:
        names = re.findall(r"{(\w+)}", self.path)
        return [
            OpenApiParameter(name, int if name in _NUMBERS else str, OpenApiParameter.PATH)
            for name in names
        ]

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/").split("/")[0]]

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        bodies["default"] = self._get_response_for_code(  # type: ignore[no-untyped-call]
            OpenApiResponse(Message, "what went wrong"), "default"
        )
        return bodies


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The bearer token, of the page /account."""

    target_class = "builds.api.base.TokenOrSession"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


def plain_paths(result: dict[str, Any], **_values: Any) -> dict[str, Any]:
    """Addresses without the slash at the end that is accepted, too."""
    paths = result["paths"]
    result["paths"] = {path.rstrip("/"): paths[path] for path in paths}
    return result
