"""What a build left behind beside its logs: results of tests, and artifacts. All our own."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import structlog
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import artifacts, reports
from builds.api.base import Missing, View, number_of
from builds.models import Artifact, Build, TestCase

_log = structlog.get_logger(__name__)


class Test(serializers.Serializer[Any]):
    """A test that was run in a stage."""

    __test__ = False
    suite = serializers.CharField(allow_blank=True)
    name = serializers.CharField()
    stage = serializers.IntegerField()
    step = serializers.IntegerField()
    duration = serializers.FloatField()
    message = serializers.CharField(allow_blank=True)


class FlakyTest(serializers.Serializer[Any]):
    """A test that passes and fails by chance: how often it did in the last 50 builds."""

    suite = serializers.CharField(allow_blank=True)
    name = serializers.CharField()
    passed = serializers.IntegerField()
    failed = serializers.IntegerField()


class TestSummary(serializers.Serializer[Any]):
    """The tests of a build."""

    __test__ = False
    total = serializers.IntegerField()
    passed = serializers.IntegerField()
    failed = serializers.IntegerField()
    skipped = serializers.IntegerField()
    duration = serializers.FloatField()
    failures = Test(many=True)
    slowest = Test(many=True)
    unread = Test(many=True)
    flaky = FlakyTest(many=True)


class ArtifactRow(serializers.Serializer[Any]):
    """A file that a stage pushed; times in seconds since 1970, `expires` 0: never."""

    path = serializers.CharField()
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    stage = serializers.IntegerField()
    created = serializers.IntegerField()
    expires = serializers.IntegerField()


class BuildView(View):
    """A view of one build."""

    def build(self, place: dict[str, str]) -> Build:
        """The build at this place, if the caller may see it."""
        repo = self.repo(place["owner"], place["name"], "read")
        number = number_of(place["number"])
        found = Build.objects.filter(repo=repo, number=number).first()
        if found is None:
            raise Missing
        return found


class Tests(BuildView):
    """What the test reports of a build say."""

    @extend_schema(responses=TestSummary)
    def get(self, _request: Request, **place: str) -> Response:
        """Numbers, failures, the slowest tests, and those that are flaky; lists of at most 100."""
        found = reports.summary(self.build(place))
        return Response(
            {
                "total": found.total,
                "passed": found.passed,
                "failed": found.failed,
                "skipped": found.skipped,
                "duration": found.duration_s,
                "failures": [_test(one) for one in found.failures],
                "slowest": [_test(one) for one in found.slowest],
                "unread": [_test(one) for one in found.unread],
                "flaky": [
                    {
                        "suite": one.suite,
                        "name": one.name,
                        "passed": one.passed,
                        "failed": one.failed,
                    }
                    for one in found.flaky
                ],
            }
        )


class Artifacts(BuildView):
    """The artifacts of a build."""

    @extend_schema(responses=ArtifactRow(many=True))
    def get(self, _request: Request, **place: str) -> Response:
        """Every file, by path."""
        return Response([_artifact(one) for one in artifacts.found(self.build(place))])


class OneArtifact(BuildView):
    """One artifact."""

    @extend_schema(
        responses={(200, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY)}
    )
    def get(self, _request: Request, **place: str) -> StreamingHttpResponse:
        """Its content, to be saved and never shown: what a build made is not this site's."""
        found = artifacts.one(self.build(place), place["path"])
        if found is None:
            raise Missing
        try:
            parts = artifacts.content(found)
        except artifacts.ArtifactGone as fault:
            _log.error("artifact.gone", error=str(fault))
            raise Missing from fault
        response = StreamingHttpResponse(parts, content_type="application/octet-stream")
        name = PurePosixPath(found.path).name
        response["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
        response["Content-Length"] = str(found.size_bytes)
        response["X-Content-Type-Options"] = "nosniff"
        response["ETag"] = f'"{found.sha256}"'
        return response


def _test(row: TestCase) -> dict[str, Any]:
    return {
        "suite": row.suite,
        "name": row.name,
        "stage": row.stage.number,
        "step": row.step,
        "duration": row.duration_s,
        "message": row.message,
    }


def _artifact(row: Artifact) -> dict[str, Any]:
    return {
        "path": row.path,
        "size": row.size_bytes,
        "sha256": row.sha256,
        "stage": row.stage.number,
        "created": int(row.created.timestamp()),
        "expires": int(row.expires.timestamp()) if row.expires else 0,
    }
