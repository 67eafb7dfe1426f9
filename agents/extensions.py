"""Programs of the host's owner that add variables, secrets and registry logins to a stage.

Source: Drone's extension protocol, as drone-go's clients and handlers speak it: a POST of repo and
build, signed with HMAC-SHA256 over five headers. Answers are taken unencrypted: what is said in
plain HTTP is the owner's choice. An extension that fails is logged and adds nothing.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from agents.image_names import canonical_host
from agents.link import proxy_of, trusting
from agents.options import Options
from pipeline import auths
from pipeline.spec import Auth, StageSpec

Add = Callable[[StageSpec, "Extension", Mapping[str, Any]], StageSpec]

log = structlog.get_logger("agents.extensions")

_TIMEOUT_S: Final = 60.0
_SIGNED: Final = ("accept", "accept-encoding", "content-type", "date", "digest")
_VARIABLES: Final = "application/vnd.drone.env.v2+json"
_SECRET: Final = "application/vnd.drone.secret.v1+json"  # noqa: S105 - a media type
_REGISTRIES: Final = "application/vnd.drone.registry.v1+json"


@dataclass(frozen=True, slots=True)
class Extension:
    """Where an extension is and the key it knows us by."""

    name: str
    endpoint: str
    token: str
    tls: ssl.SSLContext
    #: The address of a proxy on the way, if there is one.
    proxy: str | None

    def ask(self, accept: str, question: Mapping[str, Any]) -> Any:
        """The answer as data; None for no answer of any kind."""
        import httpx

        data = json.dumps(question).encode()
        headers = signed(data, accept, self.token, email.utils.formatdate(usegmt=True))
        started = time.monotonic()
        try:
            answer = httpx.post(
                self.endpoint,
                content=data,
                headers=headers,
                timeout=_TIMEOUT_S,
                verify=self.tls,
                proxy=self.proxy,
                trust_env=False,
            )
            answer.raise_for_status()
            return answer.json() if answer.content else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as fault:
            seconds = round(time.monotonic() - started, 1)
            log.warning("extension.failed", name=self.name, reason=str(fault), seconds=seconds)
            return None


def signed(data: bytes, accept: str, key: str, date: str) -> dict[str, str]:
    """Headers of a call, with their signature."""
    headers = {
        "accept": accept,
        "accept-encoding": "identity",
        "content-type": "application/json",
        "date": date,
        "digest": "SHA-256=" + base64.b64encode(hashlib.sha256(data).digest()).decode(),
    }
    text = "\n".join(f"{name}: {headers[name]}" for name in _SIGNED)
    proof = base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())
    return {
        **headers,
        "signature": 'keyId="hmac-key",algorithm="hmac-sha256",'
        f'headers="{" ".join(_SIGNED)}",signature="{proof.decode()}"',
    }


def extend(spec: StageSpec, options: Options) -> StageSpec:
    """The stage with what the extensions of the options add.

    Variables are below all others. Secrets are asked for where the server and the agent have none
    and the pipeline file says where they are. Logins come after the pipeline's own.
    """
    about = _about(spec)
    spec = _ask(spec, "env", _add_variables, options, about)
    spec = _ask(spec, "secret", _add_secrets, options, about)
    spec = _pull_logins(spec)
    return _ask(spec, "registry", _add_logins, options, about)


def _extension(kind: str, options: Options) -> Extension:
    endpoint = getattr(options, f"{kind}_plugin_endpoint")
    tls = trusting(options)
    if getattr(options, f"{kind}_plugin_skip_verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    proxy = proxy_of(options, urlsplit(endpoint))
    return Extension(kind, endpoint, getattr(options, f"{kind}_plugin_token"), tls, proxy)


def _ask(
    spec: StageSpec, kind: str, add: Add, options: Options, about: Mapping[str, Any]
) -> StageSpec:
    if not getattr(options, f"{kind}_plugin_endpoint"):
        return spec
    return add(spec, _extension(kind, options), about)


def _pull_logins(spec: StageSpec) -> StageSpec:
    """The logins in those pull secrets that only this agent, or its extension, has."""
    if not spec.pull_secrets:
        return spec
    used = {name for step in spec.steps for name in step.secrets.values()}
    texts = [spec.secrets.get(name, "") for name in spec.pull_secrets]
    found = tuple(auth for text in texts for auth in auths.parse(text))
    return replace(
        spec,
        secrets={
            name: text
            for name, text in spec.secrets.items()
            if name in used or name not in spec.pull_secrets
        },
        auths=(*spec.auths, *found),
        masks=(*spec.masks, *(auth.password for auth in found if auth.password)),
    )


def _add_variables(spec: StageSpec, extension: Extension, about: Mapping[str, Any]) -> StageSpec:
    answer = extension.ask(_VARIABLES, about)
    if isinstance(answer, dict):  # the first version of the protocol
        answer = [{"name": name, "data": text} for name, text in answer.items()]
    found: dict[str, str] = {}
    masks = list(spec.masks)
    for one in _dicts(answer):
        name, text = one.get("name"), one.get("data", "")
        if name and isinstance(text, str):
            found[str(name)] = text
            masks += [text] if one.get("mask") and text else []
    return replace(spec, environment={**found, **spec.environment}, masks=tuple(masks))


def _add_secrets(spec: StageSpec, extension: Extension, about: Mapping[str, Any]) -> StageSpec:
    secrets = dict(spec.secrets)
    for place in spec.external:
        if secrets.get(place.name):
            continue
        answer = extension.ask(_SECRET, {"path": place.path, "name": place.key, **about})
        text = answer.get("data") if isinstance(answer, dict) else None
        if isinstance(text, str) and text:
            secrets[place.name] = text
    return replace(spec, secrets=secrets)


def _add_logins(spec: StageSpec, extension: Extension, about: Mapping[str, Any]) -> StageSpec:
    found = tuple(
        Auth(canonical_host(one["address"]), one["username"], one.get("password", ""))
        for one in _dicts(extension.ask(_REGISTRIES, about))
        if one.get("address") and one.get("username")
    )
    masks = (*spec.masks, *(auth.password for auth in found if auth.password))
    return replace(spec, auths=(*spec.auths, *found), masks=masks)


def _dicts(answer: Any) -> list[dict[str, Any]]:
    return [one for one in answer if isinstance(one, dict)] if isinstance(answer, list) else []


def _about(spec: StageSpec) -> dict[str, Any]:
    """What is told of repo and build: the fields of Drone's that a stage knows."""
    environ = spec.environment
    namespace, _, name = spec.repo.rpartition("/")
    repo = {
        "namespace": namespace,
        "name": name,
        "slug": spec.repo,
        "scm": environ.get("DRONE_REPO_SCM", "git"),
        "git_http_url": environ.get("DRONE_GIT_HTTP_URL", ""),
        "git_ssh_url": environ.get("DRONE_GIT_SSH_URL", ""),
        "link": environ.get("DRONE_REPO_LINK", ""),
        "default_branch": environ.get("DRONE_REPO_BRANCH", ""),
        "private": spec.private,
        "visibility": environ.get("DRONE_REPO_VISIBILITY", ""),
        "trusted": spec.trusted,
    }
    build = {
        "number": spec.build,
        "event": spec.event,
        "action": environ.get("DRONE_BUILD_ACTION", ""),
        "trigger": environ.get("DRONE_BUILD_TRIGGER", ""),
        "link": environ.get("DRONE_COMMIT_LINK", ""),
        "title": environ.get("DRONE_PULL_REQUEST_TITLE", ""),
        "message": environ.get("DRONE_COMMIT_MESSAGE", ""),
        "before": environ.get("DRONE_COMMIT_BEFORE", ""),
        "after": environ.get("DRONE_COMMIT_AFTER", spec.clone.sha),
        "ref": environ.get("DRONE_COMMIT_REF", spec.clone.ref),
        "source": environ.get("DRONE_SOURCE_BRANCH", ""),
        "target": environ.get("DRONE_TARGET_BRANCH", spec.clone.branch),
        "source_repo": spec.source_repo,
        "author_login": environ.get("DRONE_COMMIT_AUTHOR", ""),
        "author_name": environ.get("DRONE_COMMIT_AUTHOR_NAME", ""),
        "author_email": environ.get("DRONE_COMMIT_AUTHOR_EMAIL", ""),
        "sender": environ.get("DRONE_BUILD_SENDER", ""),
        "deploy_to": environ.get("DRONE_DEPLOY_TO", ""),
    }
    return {"repo": repo, "build": build}
