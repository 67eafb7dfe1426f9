"""Builds: looking at them, making them, stopping them, letting them run.

Source: reference server, section 1.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.db.models import Max
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from builds import removal, transitions, triggers
from builds.api import documents
from builds.api.base import Bad, Missing, View, number_of
from builds.api.shapes import BUILD, Json, of_model
from builds.models import Build, Repo, Stage
from builds.permissions import Level

_BUILD = BUILD.serializer
_HEADS: Final = "refs/heads/"
_PARAMS: Final = OpenApiParameter("<name>", str, description="any further key is a parameter")


class BuildView(View):
    """A view of one build."""

    def build(self, owner: str, name: str, number: str, level: Level) -> Build:
        """The build of a repo, if the caller may. Comes with its repo."""
        repo = self.repo(owner, name, level)
        rows = Build.objects.filter(repo=repo, number=number_of(number))
        build = rows.select_related("repo").first()
        if build is None:
            raise Missing
        return build


class Builds(View):
    """The builds of a repo."""

    @extend_schema(
        responses=_BUILD(many=True),
        parameters=[
            OpenApiParameter("page", int),
            OpenApiParameter("per_page", int),
            OpenApiParameter("branch", str),
            OpenApiParameter("tag", str),
        ],
    )
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """A page of builds, newest first, without stages."""
        builds = Build.objects.filter(repo=self.repo(owner, name, "read"))
        if branch := self.named("branch"):
            builds = builds.filter(target=branch)
        if tag := self.named("tag"):
            builds = builds.filter(ref=f"refs/tags/{tag}")
        return Response(BUILD.all(builds.order_by("-number")[self.page()]))

    @extend_schema(
        request=None,
        responses=_BUILD,
        parameters=[
            OpenApiParameter("branch", str),
            OpenApiParameter("commit", str),
            OpenApiParameter("message", str),
            OpenApiParameter("debug", bool),
            _PARAMS,
        ],
    )
    def post(self, _request: Request, owner: str, name: str) -> Response:
        """Build a branch's head, or a commit; `null` where no pipeline matches."""
        repo = self.repo(owner, name, "write")
        build = triggers.create(
            repo,
            user=self.user(),
            branch=self.named("branch"),
            commit=self.named("commit"),
            message=self.named("message"),
            action=self.named("action"),
            params=self.params("branch", "commit", "message", "action", "debug"),
            debug=self.flag("debug"),
        )
        return Response(made(build))

    @extend_schema(
        responses={204: None}, parameters=[OpenApiParameter("before", int, required=True)]
    )
    def delete(self, _request: Request, owner: str, name: str) -> Response:
        """Remove the builds with a number below `before` that are done, and their logs."""
        repo = self.repo(owner, name, "admin")
        before = self.named("before")
        if not before.isdecimal() or len(before) > 9:
            raise Bad("before: expected a build's number")
        done = Build.objects.filter(repo=repo, finished__isnull=False)
        removal.remove_builds(done.filter(number__lt=int(before)))
        return Response(status=204)


class Latest(View):
    """The newest build of a branch."""

    @extend_schema(
        responses=_BUILD,
        parameters=[OpenApiParameter("branch", str), OpenApiParameter("ref", str)],
    )
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """The newest build of `branch`, else of `ref`, else of the default branch."""
        repo = self.repo(owner, name, "read")
        found = latest(repo, self.named("branch"), self.named("ref"))
        if found is None:
            raise Missing
        return Response(documents.build(found))


class OneBuild(BuildView):
    """A build."""

    @extend_schema(responses=_BUILD)
    def get(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """The build with its stages and steps."""
        return Response(documents.build(self.build(owner, name, number, "read").pk))

    @extend_schema(
        request=None, responses=_BUILD, parameters=[OpenApiParameter("debug", bool), _PARAMS]
    )
    def post(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """Build the same once more; new parameters win over the old ones."""
        build = self.build(owner, name, number, "write")
        params, debug = self.params("debug"), self.flag("debug")
        return Response(made(triggers.restart(build, user=self.user(), params=params, debug=debug)))

    @extend_schema(responses=_BUILD)
    def delete(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """Cancel the build, if it is not done."""
        build = self.build(owner, name, number, "write")
        transitions.cancel(build.pk, by=self.user().username)
        return Response(documents.build(build.pk))


class Promote(BuildView):
    """Deployments of a build."""

    verb: Callable[..., Build | None] = staticmethod(triggers.promote)

    @extend_schema(
        request=None,
        responses=_BUILD,
        parameters=[OpenApiParameter("target", str, required=True), _PARAMS],
    )
    def post(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """Build the build's commit for the deployment to `target`."""
        build = self.build(owner, name, number, "write")
        target, params = self.named("target"), self.params("target")
        return Response(made(self.verb(build, user=self.user(), target=target, params=params)))


class Rollback(Promote):
    """Deployments back to a build."""

    verb = staticmethod(triggers.rollback)


class Approve(BuildView):
    """A stage that waits for approval."""

    @extend_schema(request=None, responses={204: None})
    def post(self, _request: Request, owner: str, name: str, number: str, stage: str) -> Response:
        """Let it run."""
        build = self.build(owner, name, number, "admin")
        found = Stage.objects.filter(build=build, number=number_of(stage)).first()
        if found is None:
            raise Missing
        transitions.approve(found, by=self.user().username)
        return Response(status=204)


class Decline(BuildView):
    """Stages that wait for approval."""

    @extend_schema(request=None, responses={204: None})
    def post(
        self, _request: Request, owner: str, name: str, number: str, stage: str = ""
    ) -> Response:
        """Refuse one, or all."""
        build = self.build(owner, name, number, "admin")
        one = number_of(stage) if stage else None
        transitions.decline(build, by=self.user().username, number=one)
        return Response(status=204)


class NewestBy(View):
    """The newest build of each of something."""

    events: tuple[str, ...] = ()
    column = ""

    @extend_schema(responses=_BUILD(many=True))
    def get(self, _request: Request, owner: str, name: str) -> Response:
        """The newest build of each, newest first."""
        builds = Build.objects.filter(repo=self.repo(owner, name, "read"), event__in=self.events)
        newest = builds.order_by().values(self.column).annotate(newest=Max("id")).values("newest")
        return Response(BUILD.all(Build.objects.filter(pk__in=newest).order_by("-id")))


class Branches(NewestBy):
    """The newest build of each branch."""

    events, column = ("push",), "target"


class Pulls(NewestBy):
    """The newest build of each pull request."""

    events, column = ("pull_request",), "ref"


class Deployments(NewestBy):
    """The newest build of each deployment target."""

    events, column = ("promote", "rollback"), "deploy_to"


def made(build: Build | None) -> Json | None:
    """The answer that tells of a new build, or of none."""
    return None if build is None else of_model(BUILD, build)


def latest(repo: Repo, branch: str, ref: str) -> int | None:
    """The id of the newest build of a branch, else of a ref, else of the default branch."""
    wanted = f"{_HEADS}{branch}" if branch else ref or f"{_HEADS}{repo.default_branch}"
    builds = Build.objects.filter(repo=repo, ref=wanted).order_by("-number")
    return builds.values_list("pk", flat=True).first()
