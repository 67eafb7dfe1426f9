"""The tables. Nothing here decides: statuses are moved by `builds.transitions` alone."""

from __future__ import annotations

import secrets as random
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q

from pipeline import states

STATUSES = [(status, status.replace("_", " ")) for status in states.ALL]
VISIBILITIES = [(word, word) for word in ("public", "private", "internal")]


def new_key() -> str:
    """32 random characters: a repo's signer or secret, as Drone makes them."""
    return random.token_hex(16)


class User(AbstractUser):
    """A person or a machine. The API token is stored encrypted (it can be shown again) and found
    by hash."""

    avatar = models.CharField(max_length=500, blank=True)
    machine = models.BooleanField(default=False)
    token_sha256 = models.CharField(max_length=64, unique=True, null=True, editable=False)
    token_sealed = models.TextField(blank=True, editable=False)
    syncing = models.BooleanField(default=False)
    synced = models.DateTimeField(null=True, blank=True)


class LoginLink(models.Model):
    """A one-time address that logs its user in; only the hash of its key is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    key_sha256 = models.CharField(max_length=64, unique=True)
    expires = models.DateTimeField()
    used = models.DateTimeField(null=True)


class Repo(models.Model):
    """A repository. `secret` encrypts and signs pipeline files, `signer` proves webhooks; both
    sealed."""

    uid = models.CharField(max_length=250, blank=True)
    owner = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)
    namespace = models.CharField(max_length=250)
    name = models.CharField(max_length=250)
    slug = models.CharField(max_length=501, unique=True)
    scm = models.CharField(max_length=50, default="git", help_text="the forge: git, github, ...")
    git_http_url = models.CharField(max_length=1000, blank=True)
    git_ssh_url = models.CharField(max_length=1000, blank=True)
    link = models.CharField(max_length=1000, blank=True)
    default_branch = models.CharField(max_length=250, default="main")
    private = models.BooleanField(default=False)
    visibility = models.CharField(max_length=10, choices=VISIBILITIES, default="private")
    active = models.BooleanField(default=True)
    archived = models.BooleanField(default=False)
    config_path = models.CharField(max_length=500, default=".drone.yml")
    trusted = models.BooleanField(default=False, help_text="may use host volumes, privileged steps")
    protected = models.BooleanField(default=False, help_text="unsigned pipelines wait for approval")
    ignore_forks = models.BooleanField(default=False)
    ignore_pull_requests = models.BooleanField(default=False)
    auto_cancel_pull_requests = models.BooleanField(default=False)
    auto_cancel_pushes = models.BooleanField(default=False)
    auto_cancel_running = models.BooleanField(default=False)
    timeout_min = models.PositiveIntegerField(default=60)
    throttle = models.PositiveIntegerField(default=0, help_text="stages at a time, 0: no limit")
    retry_lost = models.PositiveIntegerField(
        default=0, help_text="new attempts of a stage whose agent was lost after it had begun"
    )
    subset_labels = models.BooleanField(
        default=False, help_text="an agent may have more labels than a stage asks for"
    )
    counter = models.PositiveIntegerField(default=0, editable=False)
    signer_sealed = models.TextField(blank=True, editable=False)
    secret_sealed = models.TextField(blank=True, editable=False)
    synced = models.DateTimeField(null=True, blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)
    version = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Perm(models.Model):
    """What a user may do with a repo."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    repo = models.ForeignKey(Repo, on_delete=models.CASCADE)
    read = models.BooleanField(default=True)
    write = models.BooleanField(default=False)
    admin = models.BooleanField(default=False)
    synced = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "repo"], name="one_perm")]


class Build(models.Model):
    """One run of a repo's pipelines for one event. The resolved pipeline text is a row of
    `Config`."""

    repo = models.ForeignKey(Repo, on_delete=models.CASCADE, related_name="builds")
    number = models.PositiveIntegerField()
    parent = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=30, choices=STATUSES, default=states.PENDING)
    error = models.TextField(blank=True)
    event = models.CharField(max_length=30)
    action = models.CharField(max_length=100, blank=True)
    trigger = models.CharField(max_length=250, blank=True, help_text="@hook, @cron or a login")
    link = models.CharField(max_length=2000, blank=True)
    title = models.CharField(max_length=2000, blank=True)
    message = models.CharField(max_length=2000, blank=True)
    before = models.CharField(max_length=64, blank=True)
    after = models.CharField(max_length=64, blank=True)
    ref = models.CharField(max_length=500, blank=True)
    source_repo = models.CharField(max_length=501, blank=True)
    source = models.CharField(max_length=500, blank=True)
    target = models.CharField(max_length=500, blank=True)
    author_login = models.CharField(max_length=250, blank=True)
    author_name = models.CharField(max_length=250, blank=True)
    author_email = models.CharField(max_length=250, blank=True)
    author_avatar = models.CharField(max_length=500, blank=True)
    sender = models.CharField(max_length=250, blank=True)
    params = models.JSONField(default=dict, blank=True)
    cron = models.CharField(max_length=250, blank=True)
    deploy_to = models.CharField(max_length=250, blank=True)
    deploy_id = models.BigIntegerField(default=0)
    debug = models.BooleanField(default=False)
    priority = models.IntegerField(default=0)
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField()
    updated = models.DateTimeField()
    version = models.PositiveIntegerField(default=1)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["repo", "number"], name="one_build_number")
        ]
        indexes: ClassVar = [models.Index(fields=["repo", "status"], name="builds_by_status")]

    def __str__(self) -> str:
        return f"{self.repo.slug}#{self.number}"


class Config(models.Model):
    """The pipeline text a build runs, converted; every claim compiles from it, nothing is fetched
    again."""

    build = models.OneToOneField(Build, on_delete=models.CASCADE, primary_key=True)
    path = models.CharField(max_length=500, blank=True)
    data = models.TextField()
    paths: models.JSONField[Any, Any] = models.JSONField(
        null=True, help_text="the files this build changes, if a condition asks for them"
    )


class Agent(models.Model):
    """A Celery worker on a build host. Its own token is found by prefix and compared by hash."""

    name = models.CharField(max_length=100, unique=True)
    token_prefix = models.CharField(max_length=16, db_index=True, editable=False)
    token_sha256 = models.CharField(max_length=64, editable=False)
    join_token = models.ForeignKey("JoinToken", on_delete=models.SET_NULL, null=True, blank=True)
    version = models.CharField(max_length=50, blank=True)
    os = models.CharField(max_length=50, default="linux")
    arch = models.CharField(max_length=50, default="amd64")
    variant = models.CharField(max_length=50, blank=True)
    kernel = models.CharField(max_length=250, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    relabelled = models.JSONField(
        null=True, blank=True, help_text="labels instead of those the agent says; empty: its own"
    )
    types = models.JSONField(default=list, blank=True)
    capacity = models.PositiveIntegerField(default=2)
    state = models.CharField(max_length=20, default="idle", help_text="as the agent last said")
    reason = models.CharField(max_length=250, blank=True)
    busy = models.PositiveIntegerField(default=0)
    load = models.FloatField(default=0)
    disk_free_bytes = models.BigIntegerField(default=0)
    disabled = models.BooleanField(
        default=False, help_text="finishes what it has, then leaves and may not come back"
    )
    drain = models.BooleanField(default=False, help_text="finishes what it has, takes nothing new")
    joined = models.DateTimeField()
    seen = models.DateTimeField()
    left = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class JoinToken(models.Model):
    """Lets agents join, and bounds what they may claim. Empty bounds do not bound."""

    name = models.CharField(max_length=100, unique=True)
    token_prefix = models.CharField(max_length=16, db_index=True, editable=False)
    token_sha256 = models.CharField(max_length=64, editable=False)
    labels = models.JSONField(default=dict, blank=True, help_text="labels its agents must have")
    platforms = models.JSONField(default=list, blank=True, help_text='such as ["linux/amd64"]')
    types = models.JSONField(default=list, blank=True, help_text='such as ["docker"]')
    repos = models.JSONField(default=list, blank=True, help_text='slugs or globs: ["octocat/*"]')
    expires = models.DateTimeField(null=True, blank=True)
    disabled = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Stage(models.Model):
    """A pipeline inside one build. `queue` is where its tickets are rung, `attempt` counts
    leases."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="stages")
    repo = models.ForeignKey(Repo, on_delete=models.CASCADE)
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=250, default="default")
    kind = models.CharField(max_length=50, default="pipeline")
    type = models.CharField(max_length=50, default="docker")
    status = models.CharField(max_length=30, choices=STATUSES, default=states.PENDING)
    error = models.TextField(blank=True)
    exit_code = models.IntegerField(default=0)
    agent = models.ForeignKey(Agent, on_delete=models.SET_NULL, null=True, blank=True)
    machine = models.CharField(max_length=100, blank=True)
    os = models.CharField(max_length=50, default="linux")
    arch = models.CharField(max_length=50, default="amd64")
    variant = models.CharField(max_length=50, blank=True)
    kernel = models.CharField(max_length=250, blank=True)
    limit = models.PositiveIntegerField(default=0)
    throttle = models.PositiveIntegerField(default=0)
    on_success = models.BooleanField(default=True)
    on_failure = models.BooleanField(default=False)
    depends_on = models.JSONField(default=list, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    axis = models.JSONField(default=dict, blank=True, help_text="this point of the matrix")
    queue = models.CharField(max_length=200, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    lost = models.DateTimeField(null=True, blank=True, help_text="since when its agent is silent")
    started = models.DateTimeField(null=True, blank=True)
    stopped = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField()
    updated = models.DateTimeField()
    version = models.PositiveIntegerField(default=1)

    class Meta:
        ordering: ClassVar = ["build", "number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["build", "number"], name="one_stage_number")
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "queue"], name="stages_by_queue"),
            models.Index(fields=["repo", "status"], name="stages_by_repo"),
        ]

    def __str__(self) -> str:
        return f"{self.build} {self.name}"


class Step(models.Model):
    """A step of a stage attempt, inserted when the stage is claimed. Its log is in `StepLog`."""

    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="steps")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=250)
    kind = models.CharField(max_length=20, default="step")
    status = models.CharField(max_length=30, choices=STATUSES, default=states.PENDING)
    error = models.TextField(blank=True)
    errignore = models.BooleanField(default=False)
    exit_code = models.IntegerField(default=0)
    depends_on = models.JSONField(default=list, blank=True)
    image = models.CharField(max_length=500, blank=True)
    detached = models.BooleanField(default=False)
    schema = models.CharField(max_length=250, blank=True)
    started = models.DateTimeField(null=True, blank=True)
    stopped = models.DateTimeField(null=True, blank=True)
    version = models.PositiveIntegerField(default=1)

    class Meta:
        ordering: ClassVar = ["stage", "number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["stage", "number"], name="one_step_number")
        ]

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


class Lease(models.Model):
    """The right of one agent to run one attempt of a stage, kept alive by reports."""

    OPEN, CLOSING, CLOSED = "open", "closing", "closed"

    id = models.CharField(max_length=40, primary_key=True)
    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="leases")
    attempt = models.PositiveIntegerField()
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="leases")
    nonce = models.CharField(max_length=64)
    state = models.CharField(
        max_length=10, default=OPEN, choices=[(w, w) for w in (OPEN, CLOSING, CLOSED)]
    )
    begun = models.BooleanField(default=False)
    created = models.DateTimeField()
    seen = models.DateTimeField(help_text="the last report, by the database's clock")
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["agent", "nonce"], name="one_answer_per_nonce"),
            models.UniqueConstraint(fields=["stage", "attempt"], name="one_lease_per_attempt"),
        ]
        indexes: ClassVar = [models.Index(fields=["state", "agent"], name="leases_by_state")]


class Hold(models.Model):
    """A failed step that its agent keeps for debugging, as long as the row is there. `shell` names
    the one viewer at its shell."""

    step = models.OneToOneField(Step, on_delete=models.CASCADE, primary_key=True)
    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="holds")
    exit_code = models.IntegerField(default=0)
    created = models.DateTimeField()
    expires = models.DateTimeField(help_text="unless somebody works in its shell")
    released = models.BooleanField(default=False, help_text="the agent is told to go on")
    shell = models.CharField(max_length=32, blank=True)
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)
    shell_seen = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return str(self.step)


class Secret(models.Model):
    """A secret of a repo, or of a whole namespace (`repo` empty). The value is sealed."""

    repo = models.ForeignKey(Repo, on_delete=models.CASCADE, null=True, blank=True)
    namespace = models.CharField(max_length=250, blank=True)
    name = models.CharField(max_length=250)
    data_sealed = models.TextField(editable=False)
    pull_request = models.BooleanField(default=False, help_text="also for pull requests")
    pull_request_push = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["repo", "name"], name="one_repo_secret", condition=Q(repo__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["namespace", "name"], name="one_org_secret", condition=Q(repo__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.repo.slug if self.repo else self.namespace}: {self.name}"


class Template(models.Model):
    """A pipeline template of a namespace; its name's extension says which language it is."""

    namespace = models.CharField(max_length=250)
    name = models.CharField(max_length=250)
    data = models.TextField()
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["namespace", "name"], name="one_template")
        ]

    def __str__(self) -> str:
        return f"{self.namespace}: {self.name}"


class Outbox(models.Model):
    """Something the outside must be told, written with the change it tells of; in order per
    `topic`."""

    kind = models.CharField(max_length=30)
    topic = models.CharField(max_length=250)
    payload = models.JSONField()
    created = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    next_try = models.DateTimeField(db_index=True)
    error = models.TextField(blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["topic", "id"], name="outbox_order")]


class Leader(models.Model):
    """Who may run a loop: the holder, until the moment given, by the database's clock."""

    name = models.CharField(max_length=50, primary_key=True)
    holder = models.CharField(max_length=100)
    until = models.DateTimeField()


class ServerState(models.Model):
    """Facts all server processes share: a paused queue, when a web process was last up."""

    key = models.CharField(max_length=50, primary_key=True)
    value: models.JSONField[Any, Any] = models.JSONField(default=dict)


class Artifact(models.Model):
    """A file a stage pushed to the server's store."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="artifacts")
    stage = models.ForeignKey(Stage, on_delete=models.CASCADE)
    path = models.CharField(max_length=1000)
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    mode = models.PositiveIntegerField(default=0o644)
    key = models.CharField(max_length=250, help_text="where the store has it")
    created = models.DateTimeField()
    expires = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["build", "path"], name="one_artifact")
        ]


class TestCase(models.Model):
    """One test's result in a stage, read from a JUnit report."""

    __test__ = False
    repo = models.ForeignKey(Repo, on_delete=models.CASCADE)
    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="tests")
    step = models.PositiveIntegerField(help_text="the step's number: it replaces its own results")
    suite = models.CharField(max_length=500, blank=True)
    name = models.CharField(max_length=1000)
    result = models.CharField(max_length=10)  # passed, failed, skipped; unread: a broken report
    duration_s = models.FloatField(default=0)
    message = models.TextField(blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["stage", "step"], name="tests_by_step")]


class Audit(models.Model):
    """Who did something that must be traceable: a shell, a revoked token."""

    created = models.DateTimeField(auto_now_add=True)
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    action = models.CharField(max_length=50)
    subject = models.CharField(max_length=500)
    detail = models.JSONField(default=dict)


class StepLog(models.Model):
    """A step's log: `next` is the position after the last stored line, `end` where it will be
    complete.

    With SQLite this and `LogBatch` lie in a second file (no foreign keys), so that log writes
    never make
    other writes wait.
    """

    step = models.BigIntegerField(primary_key=True)
    next = models.BigIntegerField(default=0)
    end = models.BigIntegerField(null=True)
    size_bytes = models.BigIntegerField(default=0)
    key = models.CharField(max_length=250, blank=True, help_text="the compacted object, if any")
    index = models.JSONField(
        default=list, help_text="[first line, line count, offset, length, ...]"
    )

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["step"], name="due_logs", condition=Q(key="", end__isnull=False))
        ]


class LogBatch(models.Model):
    """Lines [first, first + count) of a step as they came: one zstd frame (see `builds.logs`)."""

    step = models.BigIntegerField()
    first = models.BigIntegerField()
    count = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["step", "first"], name="one_batch_per_position")
        ]
