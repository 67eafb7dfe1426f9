"""The JSON objects of the API: one table per object gives columns, output and schema.

Source: reference server, section 2. Times are unix seconds, 0 is unset; an optional key is absent
when its value is zero, empty or false.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import QuerySet
from rest_framework import serializers

INTEGER: Final = "integer"
STRING: Final = "string"
BOOLEAN: Final = "boolean"
NUMBER: Final = "number"
TIME: Final = "time"
LIST: Final = "list"
MAP: Final = "map"

Json = dict[str, Any]

_SERIALIZERS: Final[Mapping[str, Any]] = {
    INTEGER: serializers.IntegerField,
    NUMBER: serializers.FloatField,
    TIME: serializers.IntegerField,
    STRING: serializers.CharField,
    BOOLEAN: serializers.BooleanField,
    LIST: serializers.ListField,
    MAP: serializers.DictField,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object: where its value comes from; no column means a constant."""

    name: str
    kind: str = STRING
    column: str = ""
    optional: bool = False
    constant: Any = None


class Shape:
    """An object of the API, made from rows of `.values(*shape.columns)`."""

    def __init__(
        self, name: str, doc: str, *keys: Key, nested: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.keys = keys
        self.columns = tuple(dict.fromkeys(key.column for key in keys if key.column))
        fields: dict[str, Any] = {
            key.name: _SERIALIZERS[key.kind](required=not key.optional) for key in keys
        }
        fields.update(nested or {})
        #: A serializer class, for the schema.
        self.serializer: type[serializers.Serializer[Any]] = type(
            name, (serializers.Serializer,), {**fields, "__doc__": doc}
        )

    def json(self, row: Mapping[str, Any]) -> Json:
        """The object of one row."""
        made: Json = {}
        for key in self.keys:
            value = row[key.column] if key.column else key.constant
            if key.kind == TIME:
                value = int(value.timestamp()) if value else 0
            if value or not key.optional:
                made[key.name] = value
        return made

    def all(self, rows: QuerySet[Any]) -> list[Json]:
        """The objects of a query."""
        return [self.json(row) for row in rows.values(*self.columns)]


def _keys(text: str, kind: str, optional: bool = False) -> list[Key]:
    """Keys of one kind: `name` or `name=column`, separated by blanks."""
    pairs = (word.partition("=") for word in text.split())
    return [Key(name, kind, column or name, optional) for name, _, column in pairs]


def _key(text: str, kind: str = STRING) -> Key:
    return _keys(text, kind)[0]


def _maybe(text: str, kind: str = STRING) -> Key:
    return _keys(text, kind, optional=True)[0]


STEP: Final = Shape(
    "Step",
    "A step of a stage; `step_id` is the stage's id.",
    *_keys("id step_id=stage_id number", INTEGER),
    *_keys("name status", STRING),
    _maybe("error"),
    _maybe("errignore", BOOLEAN),
    _key("exit_code", INTEGER),
    *_keys("started stopped", TIME, optional=True),
    _key("version", INTEGER),
    _maybe("depends_on", LIST),
    _maybe("image"),
    _maybe("detached", BOOLEAN),
    _maybe("schema"),
    Key("debug_until", TIME, optional=True),
)
HOLD: Final = Shape(
    "Hold",
    "A failed step that is kept for debugging; `id` is the step's.",
    *_keys("id=step_id stage=step__stage__number step=step__number", INTEGER),
    *_keys("stage_name=step__stage__name name=step__name", STRING),
    _key("exit_code", INTEGER),
    *_keys("created expires", TIME),
    _maybe("user=user__username"),
)
STAGE: Final = Shape(
    "Stage",
    "A pipeline of a build.",
    *_keys("id repo_id build_id number", INTEGER),
    _key("name"),
    *_keys("kind type", STRING, optional=True),
    _key("status"),
    _maybe("error"),
    Key("errignore", BOOLEAN, constant=False),
    _key("exit_code", INTEGER),
    _maybe("machine"),
    *_keys("os arch", STRING),
    *_keys("variant kernel", STRING, optional=True),
    *_keys("limit throttle", INTEGER, optional=True),
    *_keys("started stopped created updated", TIME),
    _key("version", INTEGER),
    *_keys("on_success on_failure", BOOLEAN),
    _maybe("depends_on", LIST),
    _maybe("labels", MAP),
    nested={"steps": STEP.serializer(many=True, required=False)},
)
BUILD: Final = Shape(
    "Build",
    "A build; `stages` where one build is asked for.",
    *_keys("id repo_id", INTEGER),
    _key("trigger"),
    _key("number", INTEGER),
    _maybe("parent", INTEGER),
    _key("status"),
    _maybe("error"),
    *_keys("event action link", STRING),
    Key("timestamp", INTEGER, constant=0),
    _maybe("title"),
    *_keys("message before after ref source_repo source target", STRING),
    *_keys("author_login author_name author_email author_avatar sender", STRING),
    _maybe("params", MAP),
    *_keys("cron deploy_to", STRING, optional=True),
    _maybe("deploy_id", INTEGER),
    _maybe("debug", BOOLEAN),
    *_keys("started finished created updated", TIME),
    _key("version", INTEGER),
    nested={"stages": STAGE.serializer(many=True, required=False)},
)


class Permission(serializers.Serializer[Any]):
    """What the caller may do with a repo."""

    read = serializers.BooleanField()
    write = serializers.BooleanField()
    admin = serializers.BooleanField()


REPO: Final = Shape(
    "Repo",
    "A repository; `timeout` in minutes.",
    _key("id", INTEGER),
    _key("uid"),
    _key("user_id=owner_id", INTEGER),
    *_keys("namespace name slug scm git_http_url git_ssh_url link default_branch", STRING),
    _key("private", BOOLEAN),
    _key("visibility"),
    _key("active", BOOLEAN),
    _key("config_path"),
    *_keys("trusted protected ignore_forks ignore_pull_requests", BOOLEAN),
    *_keys("auto_cancel_pull_requests auto_cancel_pushes auto_cancel_running", BOOLEAN),
    _key("timeout=timeout_min", INTEGER),
    _maybe("throttle", INTEGER),
    _key("counter", INTEGER),
    *_keys("synced created updated", TIME),
    _key("version", INTEGER),
    _key("archived", BOOLEAN),
    nested={
        "build": BUILD.serializer(required=False),
        "permissions": Permission(required=False),
    },
)
USER: Final = Shape(
    "User",
    "A person or a machine.",
    _key("id", INTEGER),
    _key("login=username"),
    _key("email"),
    _key("machine", BOOLEAN),
    *_keys("admin=is_superuser active=is_active", BOOLEAN),
    *_keys("avatar avatar_url=avatar", STRING),
    _key("syncing", BOOLEAN),
    *_keys("synced created=date_joined updated=date_joined last_login", TIME),
    nested={"token": serializers.CharField(required=False)},
)
SECRET: Final = Shape(
    "Secret",
    "A secret without its value.",
    *_keys("id repo_id", INTEGER, optional=True),
    *_keys("namespace name", STRING, optional=True),
    *_keys("pull_request pull_request_push", BOOLEAN, optional=True),
)
BUILD_STAGE: Final = Shape(
    "RepoBuildStage",
    "A stage with its build and repo.",
    _key("repo_namespace=repo__namespace"),
    _key("repo_name=repo__name"),
    _key("repo_slug=repo__slug"),
    _key("build_number=build__number", INTEGER),
    _key("build_author=build__author_login"),
    *_keys("build_author_name=build__author_name build_author_email=build__author_email", STRING),
    *_keys("build_author_avatar=build__author_avatar build_sender=build__sender", STRING),
    *_keys("build_started=build__started build_finished=build__finished", TIME),
    *_keys("build_created=build__created build_updated=build__updated", TIME),
    *_keys("stage_name=name stage_kind=kind stage_type=type stage_status=status", STRING),
    *_keys("stage_machine=machine stage_os=os stage_arch=arch", STRING),
    *_keys("stage_variant=variant stage_kernel=kernel", STRING),
    *_keys("stage_limit=limit stage_limit_repo=throttle", INTEGER),
    *_keys("stage_started=started stage_stopped=stopped", TIME),
)
COLLABORATOR: Final = Shape(
    "Collaborator",
    "A person with rights on a repo.",
    _key("user_id", INTEGER),
    _key("repo_id=repo__uid"),
    _key("login=user__username"),
    _key("avatar=user__avatar"),
    *_keys("read write admin", BOOLEAN),
    *_keys("synced created=synced updated=synced", TIME),
)
TEMPLATE: Final = Shape(
    "Template",
    "A pipeline template.",
    _maybe("id", INTEGER),
    *_keys("name namespace data", STRING, optional=True),
    *_keys("created updated", TIME, optional=True),
)
AGENT: Final = Shape(
    "Agent",
    "An agent. `status` is how it is now, `state` and `reason` are what it last said.",
    _key("id", INTEGER),
    *_keys("name version os arch variant kernel", STRING),
    _key("labels", MAP),
    _key("types", LIST),
    *_keys("capacity busy", INTEGER),
    Key("load", NUMBER, "load"),
    _key("disk_free_bytes", INTEGER),
    *_keys("state reason", STRING),
    *_keys("drain disabled", BOOLEAN),
    _maybe("relabelled", MAP),
    _maybe("join_token=join_token__name"),
    *_keys("joined seen left", TIME),
    nested={"status": serializers.CharField()},
)


def of_model(shape: Shape, instance: Any) -> Json:
    """The object of a model instance."""
    return shape.json({column: getattr(instance, column) for column in shape.columns})


def group(rows: Iterable[Json], key: str) -> dict[int, list[Json]]:
    """Objects by the number under `key`, in order."""
    groups: dict[int, list[Json]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
