"""What people type into the dashboard, checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib.auth.forms import AuthenticationForm

from builds.models import Repo, Secret, User
from builds.repos import Registration, register
from builds.secrets import seal
from pipeline.errors import UserError

if TYPE_CHECKING:
    _RepoForm = forms.ModelForm[Repo]
else:
    _RepoForm = forms.ModelForm

_SECRET = re.compile(r"[\w.-]+", re.ASCII)


class Login(AuthenticationForm):
    """User name and password."""

    error_messages = {  # noqa: RUF012 - as its base declares it
        "invalid_login": "This user name and password do not match.",
        "inactive": "This account is disabled.",
    }


class AddRepo(forms.Form):
    """A git address becomes a repo; the name is read from it unless given."""

    url = forms.CharField(
        label="Git address",
        max_length=1000,
        help_text="https://…, ssh://…, git@host:owner/name.git, file:///path or a path "
        "on the server.",
    )
    slug = forms.CharField(
        label="Name",
        required=False,
        max_length=500,
        help_text="owner/name as shown here. Left empty, it is taken from the address.",
    )
    default_branch = forms.CharField(
        label="Default branch",
        required=False,
        max_length=250,
        help_text="Left empty, the repository says.",
    )
    trusted = forms.BooleanField(
        required=False,
        help_text="Its pipelines may use host volumes, privileged steps and the host's own shell.",
    )

    def register(self, owner: User) -> Repo | None:
        """The repo, new or not; None when the form says what is wrong."""
        wanted = Registration(
            url=self.cleaned_data["url"],
            slug=self.cleaned_data["slug"].strip(),
            default_branch=self.cleaned_data["default_branch"].strip(),
            trusted=self.cleaned_data["trusted"],
        )
        try:
            return register(wanted, owner)[0]
        except UserError as fault:
            self.add_error(None, f"{str(fault)[:1].upper()}{str(fault)[1:]}.")
            return None


class NewBuild(forms.Form):
    """A build that a person asks for."""

    branch = forms.CharField(required=False, max_length=250)
    commit = forms.CharField(
        required=False,
        max_length=64,
        help_text="A full or short hash. Left empty, the branch's newest commit is built.",
    )
    parameters = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="One NAME=value per line; steps see them as environment variables.",
    )

    def clean_commit(self) -> str:
        commit: str = self.cleaned_data["commit"].strip().lower()
        if commit and not re.fullmatch(r"[0-9a-f]{4,64}", commit):
            raise forms.ValidationError("Expected a commit hash: digits and letters a to f.")
        return commit

    def clean_branch(self) -> str:
        branch: str = self.cleaned_data["branch"].strip().removeprefix("refs/heads/")
        if branch.startswith("-") or re.search(r"[\s~^:?*\[\\]|\.\.", branch):
            raise forms.ValidationError("Not a name that git allows for a branch.")
        return branch

    def clean_parameters(self) -> dict[str, str]:
        found = {}
        for number, line in enumerate(self.cleaned_data["parameters"].splitlines(), 1):
            if not line.strip():
                continue
            name, equals, value = line.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", name.strip(), re.ASCII):
                raise forms.ValidationError(f"Line {number}: expected NAME=value.")
            found[name.strip()] = value.strip()
        return found


class RepoSettings(_RepoForm):
    """What an administrator of a repo may change."""

    class Meta:
        model = Repo
        fields: ClassVar = [
            "config_path",
            "default_branch",
            "visibility",
            "timeout_min",
            "throttle",
            "retry_lost",
            "protected",
            "ignore_forks",
            "ignore_pull_requests",
            "auto_cancel_pushes",
            "auto_cancel_pull_requests",
            "auto_cancel_running",
            "subset_labels",
            "active",
            "trusted",
        ]
        labels: ClassVar = {
            "config_path": "Pipeline file",
            "timeout_min": "Time limit of a stage, in minutes",
            "throttle": "Stages at a time",
            "retry_lost": "New attempts after a lost agent",
            "protected": "Protected",
            "ignore_forks": "Ignore forks",
            "ignore_pull_requests": "Ignore pull requests",
            "auto_cancel_pushes": "Cancel older pushes",
            "auto_cancel_pull_requests": "Cancel older pull requests",
            "auto_cancel_running": "Cancel running builds too",
            "subset_labels": "Loose labels",
            "active": "Active",
            "trusted": "Trusted",
        }
        help_texts: ClassVar = {
            "config_path": "Where in the repository the pipelines are described.",
            "visibility": "public: everyone, also without login. internal: everyone who is "
            "logged in. private: those with a permission.",
            "throttle": "0 means no limit.",
            "retry_lost": "How often a stage may start anew whose agent went silent.",
            "protected": "Pipeline files without a valid signature wait for approval.",
            "ignore_forks": "Pull requests from forks start no builds.",
            "ignore_pull_requests": "Pull requests start no builds.",
            "auto_cancel_pushes": "A push cancels waiting builds of the same branch.",
            "auto_cancel_pull_requests": "A new commit cancels waiting builds of its pull request.",
            "auto_cancel_running": "Not only waiting ones are cancelled.",
            "subset_labels": "Agents may have more labels than a stage asks for.",
            "active": "Events start builds.",
            "trusted": "May use host volumes, privileged steps and the host's own shell.",
        }

    def __init__(self, *args: Any, server_admin: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["timeout_min"].min_value = 1  # type: ignore[attr-defined]
        self.fields["timeout_min"].widget.attrs["min"] = 1
        if not server_admin:
            del self.fields["trusted"]

    def clean_timeout_min(self) -> int:
        minutes: int = self.cleaned_data["timeout_min"]
        if not minutes:
            raise forms.ValidationError("At least one minute.")
        return minutes


class _NeverShown(forms.Textarea):
    """A text area that does not repeat what was typed."""

    def format_value(self, value: Any) -> str:
        return ""


class NewSecret(forms.Form):
    """A secret's name and value; the value is never shown again."""

    name = forms.CharField(max_length=250)
    value = forms.CharField(
        strip=False, widget=_NeverShown(attrs={"rows": 3, "spellcheck": "false"})
    )
    pull_request = forms.BooleanField(
        label="Also for pull requests",
        required=False,
        help_text="Whoever may open a pull request can then read it.",
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if not _SECRET.fullmatch(name):
            raise forms.ValidationError("Letters, digits, dots, - and _ only.")
        return name

    def save(self, repo: Repo) -> None:
        """Store the secret; one of the same name gets the new value."""
        Secret.objects.update_or_create(
            repo=repo,
            name=self.cleaned_data["name"],
            defaults={
                "data_sealed": seal(self.cleaned_data["value"].replace("\r\n", "\n")),
                "pull_request": self.cleaned_data["pull_request"],
            },
        )
