"""The pages for administrators: look, filter, and act through the domain's own verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from builds import fleet, membership, removal, transitions, triggers
from builds.forges.base import ForgeError
from builds.models import (
    Agent,
    Audit,
    Build,
    JoinToken,
    Lease,
    Outbox,
    Perm,
    Repo,
    Secret,
    Stage,
    Step,
    Template,
    User,
)
from builds.queue import why_waiting
from builds.secrets import seal
from pipeline.errors import UserError

if TYPE_CHECKING:  # generic for the checker only
    _ModelAdmin = admin.ModelAdmin[Any]
    _Inline = admin.TabularInline[Any, Any]
    _UserAdmin = UserAdmin[User]
    _SecretForm = forms.ModelForm[Secret]
else:
    _ModelAdmin, _Inline, _UserAdmin = admin.ModelAdmin, admin.TabularInline, UserAdmin
    _SecretForm = forms.ModelForm

admin.site.site_header = "ciserver"
admin.site.site_title = "ciserver"
admin.site.index_title = "Administration"

_SEALED = "leave empty to keep the value"


class ReadOnly(_ModelAdmin):
    """Rows that only the server itself writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class History(ReadOnly):
    """Rows that stay: retention and the API take their logs and files along, these pages do not."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Rows(_Inline):
    """Rows below another row, to look at."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class StageRows(Rows):
    model = Stage
    fields = ("number", "name", "status", "type", "machine", "attempt", "started", "stopped")


class StepRows(Rows):
    model = Step
    fields = ("number", "name", "kind", "status", "exit_code", "started", "stopped")


class LeaseRows(Rows):
    model = Lease
    fields = ("id", "attempt", "agent", "state", "begun", "created", "seen", "ended")


class PermRows(_Inline):
    model = Perm
    extra = 0


@admin.register(User)
class Users(_UserAdmin):
    """Users; machine users have only a token."""

    list_display = ("username", "email", "machine", "is_superuser", "is_active", "last_login")
    list_filter = ("is_superuser", "is_active", "machine")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email", "avatar", "machine")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )


@admin.register(Repo)
class Repos(_ModelAdmin):
    """Repositories and their rules."""

    list_display = ("slug", "scm", "visibility", "active", "trusted", "protected", "counter")
    list_filter = ("active", "scm", "visibility", "trusted", "protected")
    search_fields = ("slug", "git_http_url")
    readonly_fields = ("counter", "created", "updated")
    inlines = (PermRows,)
    actions = ("activate", "deactivate")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """They are added on the page `/add`, which asks the repository itself."""
        return False

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """A repository takes its builds along, though their own page deletes none; not listed."""
        counts = {
            "repositories": len(objs),
            "builds": Build.objects.filter(repo__in=objs).count(),
            "secrets": Secret.objects.filter(repo__in=objs).count(),
        }
        return [str(repo) for repo in objs], counts, set(), []

    def delete_model(self, request: HttpRequest, obj: Repo) -> None:
        self.delete_queryset(request, Repo.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Repo]) -> None:
        removal.remove_repos(queryset)

    @admin.action(description="Activate")
    def activate(self, request: HttpRequest, repos: QuerySet[Repo]) -> None:
        self.message_user(request, f"{repos.update(active=True)} activated")

    @admin.action(description="Deactivate: events make no builds")
    def deactivate(self, request: HttpRequest, repos: QuerySet[Repo]) -> None:
        self.message_user(request, f"{repos.update(active=False)} deactivated")


@admin.register(Build)
class Builds(History):
    """Builds, newest first."""

    list_display = ("__str__", "status", "event", "target", "short_sha", "sender", "created")
    list_filter = ("status", "event", "repo")
    list_select_related = ("repo",)
    search_fields = ("repo__slug", "after", "message", "author_login")
    date_hierarchy = "created"
    inlines = (StageRows,)
    actions = ("cancel", "restart")

    @admin.display(description="commit")
    def short_sha(self, build: Build) -> str:
        return build.after[:10]

    @admin.action(description="Cancel", permissions=["view"])
    def cancel(self, request: HttpRequest, builds: QuerySet[Build]) -> None:
        by = request.user.get_username()
        count = sum(transitions.cancel(build.pk, by=by) for build in builds)
        self.message_user(request, f"{count} cancelled")

    @admin.action(description="Build the same commit again", permissions=["view"])
    def restart(self, request: HttpRequest, builds: QuerySet[Build]) -> None:
        for build in builds.select_related("repo"):
            try:
                made = triggers.restart(build, user=_user(request))
            except (UserError, ForgeError) as fault:
                self.message_user(request, f"{build}: {fault}", messages.ERROR)
            else:
                self.message_user(request, f"{build}: {made or 'no pipeline matches'}")


@admin.register(Stage)
class Stages(History):
    """Stages, and what they wait for."""

    list_display = ("__str__", "status", "type", "os", "arch", "machine", "attempt", "created")
    list_filter = ("status", "type", "os", "arch", "agent")
    list_select_related = ("build__repo",)
    search_fields = ("build__repo__slug", "name", "machine")
    readonly_fields = ("waits_because",)
    inlines = (StepRows, LeaseRows)

    @admin.display(description="why it waits")
    def waits_because(self, stage: Stage) -> str:
        return why_waiting(stage) or "-"


@admin.register(Step)
class Steps(History):
    """Steps of all stages."""

    list_display = ("__str__", "kind", "status", "exit_code", "image", "started", "stopped")
    list_filter = ("status", "kind")
    list_select_related = ("stage__build__repo",)
    search_fields = ("name", "image", "stage__build__repo__slug")


class SecretForm(_SecretForm):
    """A secret's value can be set and never seen."""

    value = forms.CharField(
        required=False, help_text=_SEALED, widget=forms.Textarea(attrs={"rows": 4})
    )

    class Meta:
        model = Secret
        fields = ("repo", "namespace", "name", "pull_request", "pull_request_push")

    def clean(self) -> dict[str, Any]:
        """A new secret needs a value."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.instance.pk and not cleaned.get("value"):
            self.add_error("value", "a secret needs a value")
        return cleaned

    def save(self, commit: bool = True) -> Secret:
        """Seal the value, if there is a new one."""
        if self.cleaned_data.get("value"):
            self.instance.data_sealed = seal(self.cleaned_data["value"])
        saved: Secret = super().save(commit)
        return saved


@admin.register(Secret)
class Secrets(_ModelAdmin):
    """Secrets of repos and namespaces."""

    form = SecretForm
    list_display = ("name", "repo", "namespace", "pull_request")
    list_filter = ("pull_request", "namespace")
    list_select_related = ("repo",)
    search_fields = ("name", "repo__slug", "namespace")


@admin.register(Template)
class Templates(_ModelAdmin):
    """Pipeline templates of namespaces."""

    list_display = ("name", "namespace", "updated")
    search_fields = ("name", "namespace")


@admin.register(Agent)
class Agents(_ModelAdmin):
    """Agents: what they are, how they are, and whether they get work."""

    list_display = (
        "name", "state", "busy", "capacity", "os", "arch", "version", "disabled", "drain", "seen",
    )  # fmt: skip
    list_filter = ("state", "disabled", "drain", "os", "arch", "join_token")
    search_fields = ("name",)
    readonly_fields = (
        "name", "join_token", "version", "os", "arch", "variant", "kernel", "labels", "types",
        "capacity", "state", "reason", "busy", "load", "disk_free_bytes", "joined", "seen", "left",
        "disabled", "drain",
    )  # fmt: skip
    actions = ("disable", "enable", "drain_agents", "undrain", "revoke_tokens")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Agent, form: Any, change: bool) -> None:
        """The one thing to edit are the labels."""
        try:
            fleet.relabel(obj, obj.relabelled, _user(request))
        except UserError as fault:
            self.message_user(request, str(fault), messages.ERROR)

    def delete_model(self, request: HttpRequest, obj: Agent) -> None:
        fleet.delete(obj, _user(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        for agent in queryset:
            fleet.delete(agent, _user(request))

    @admin.action(description="Disable: finish what runs, then leave for good")
    def disable(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._tell(request, agents, "disable", "disabled")

    @admin.action(description="Enable")
    def enable(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._tell(request, agents, "enable", "enabled")

    @admin.action(description="Undrain: take work again")
    def undrain(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._tell(request, agents, "undrain", "told to take work again")

    @admin.action(description="Drain: finish what runs, take nothing new")
    def drain_agents(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._tell(request, agents, "drain", "told to drain")

    @admin.action(description="Revoke the token: every call is refused from now on")
    def revoke_tokens(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        for agent in agents:
            fleet.revoke(agent, _user(request))
        self.message_user(request, f"{len(agents)} revoked")

    def _tell(self, request: HttpRequest, agents: QuerySet[Agent], word: str, done: str) -> None:
        rows = list(agents)
        for agent in rows:
            fleet.tell(agent, word, _user(request))
        self.message_user(request, f"{len(rows)} {done}")


@admin.register(JoinToken)
class JoinTokens(_ModelAdmin):
    """What lets agents join. The text of a new one is shown once, after it is saved."""

    list_display = ("name", "labels", "platforms", "types", "repos", "expires", "disabled")
    list_filter = ("disabled",)
    search_fields = ("name",)
    actions = ("revoke",)

    def save_model(self, request: HttpRequest, obj: JoinToken, form: Any, change: bool) -> None:
        """A new row gets a token, shown now and never again."""
        if not change:
            text = membership.give_token(obj)
            self.message_user(request, f"agents can connect with token {text}", messages.WARNING)
        super().save_model(request, obj, form, change)

    @admin.action(description="Revoke: nobody joins with it, its agents get no more work")
    def revoke(self, request: HttpRequest, tokens: QuerySet[JoinToken]) -> None:
        for token in tokens:
            _note(request, "join_token.revoked", token.name)
        self.message_user(request, f"{tokens.update(disabled=True)} revoked")


@admin.register(Outbox)
class Outboxes(ReadOnly):
    """What is still to be told to the outside."""

    list_display = ("kind", "topic", "attempts", "next_try", "error")
    list_filter = ("kind",)


@admin.register(Audit)
class Audits(History):
    """Who did what."""

    list_display = ("created", "user", "action", "subject", "detail")
    list_filter = ("action",)
    search_fields = ("subject", "user__username")
    list_select_related = ("user",)


def _user(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise TypeError("the admin pages need a user")
    return request.user


def _note(request: HttpRequest, action: str, subject: str) -> None:
    Audit.objects.create(user=_user(request), action=action, subject=subject)
