"""The Docker engine as the driver uses it: few calls, plain answers, one kind of error.

The SDK is imported when an engine is first needed: it costs an idle agent 6 MB.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import tarfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import structlog

from agents.drivers.base import DriverError
from agents.drivers.docker_stream import Plain, Replay, Stream
from agents.image_names import canonical_host, registry
from agents.option_table import Options
from pipeline.spec import Auth

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
AnyStream = TypeVar("AnyStream", bound=Stream)
_CALL_S: Final = 300
_CREATE_S: Final = 600
_PIECE_BYTES: Final = 1024 * 1024


class EngineAway(DriverError):
    """The engine cannot be reached, or broke the connection."""


class NotThere(DriverError):
    """The engine does not have the object."""


class PathUnseen(DriverError):
    """The engine does not see a path of this host: it runs elsewhere."""


@dataclass(frozen=True, slots=True)
class State:
    """How a container is."""

    running: bool
    exit_code: int
    oom: bool
    error: str


class Engine:
    """One engine, by the address and certificates of the options. Safe for threads."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def address(self) -> str:
        """Where the engine is, for messages."""
        return self._options.docker_host

    def ping(self) -> None:
        """Raises: EngineAway with a sentence if the engine does not answer."""
        self._call(lambda api: api.ping())

    def info(self) -> Mapping[str, Any]:
        """What the engine says about itself and its host."""
        return self._call(lambda api: api.info())

    # --- containers ---

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container and return its id.

        Raises: NotThere without the image, PathUnseen for an unknown host path, DriverError.
        """

        def make(api: Any) -> str:
            return str(api.create_container_from_config(dict(body), name)["Id"])

        return self._call(make)

    def attach(self, container: str) -> Stream:
        """The output of a container from its start on, and its input; call it before the start."""
        return self._attach(container, Stream)

    def attach_terminal(self, container: str) -> Plain:
        """As `attach`, for a container that has a terminal."""
        return self._attach(container, Plain)

    def _attach(self, container: str, kind: type[AnyStream]) -> AnyStream:
        def attach(api: Any) -> AnyStream:
            url = f"{api.base_url}/v{api.api_version}/containers/{container}/attach"
            params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
            answer = api.post(url, params=params, headers=upgrade, stream=True, timeout=None)
            self._check(answer)
            return kind(answer)

        return self._call(attach)

    def start(self, container: str) -> None:
        """Start a container. Raises: DriverError with the engine's reason."""
        self._call(lambda api: api.start(container))

    def wait(self, container: str) -> int:
        """Block until a container has ended; its exit code. Raises: EngineAway, NotThere."""

        def wait(api: Any) -> int:
            # no time limit: a step may be silent for hours
            url = f"{api.base_url}/v{api.api_version}/containers/{container}/wait"
            answer = api.post(url, timeout=None)
            self._check(answer)
            return int(answer.json()["StatusCode"])

        return self._call(wait)

    @staticmethod
    def _check(answer: Any) -> None:
        import docker.errors

        if answer.status_code == 404:
            raise docker.errors.NotFound(answer.text)
        answer.raise_for_status()

    def state(self, container: str) -> State:
        """How a container is now. Raises: EngineAway, NotThere."""
        found = self._call(lambda api: api.inspect_container(container))["State"]
        return State(
            running=bool(found.get("Running")),
            exit_code=int(found.get("ExitCode") or 0),
            oom=bool(found.get("OOMKilled")),
            error=str(found.get("Error") or ""),
        )

    def signal(self, container: str, name: str) -> None:
        """Send a signal to the first process. Raises: DriverError, also if it does not run."""
        self._call(lambda api: api.kill(container, name))

    def output(self, container: str) -> bytes:
        """All output of a container the engine still has."""
        read: Callable[[Any], bytes] = lambda api: api.logs(container, stdout=True, stderr=True)  # noqa: E731
        return self._call(read)

    def follow(self, container: str, skip: int) -> Replay:
        """The kept output from its byte `skip` on and then what comes, until the container ends."""

        def ask(api: Any) -> Replay:
            url = f"{api.base_url}/v{api.api_version}/containers/{container}/logs"
            params = {"stdout": 1, "stderr": 1, "follow": 1}
            answer = api.get(url, params=params, stream=True, timeout=None)
            self._check(answer)
            return Replay(answer, skip)

        return self._call(ask)

    def put(self, container: str, path: str, data: Iterable[bytes]) -> None:
        """Unpack a tar stream below `path` of a container that may not run yet."""
        self._call(lambda api: api.put_archive(container, path, iter(data)))

    def stat(self, container: str, path: str) -> Mapping[str, Any] | None:
        """What the engine says about a path of a container; None if nothing is there."""

        def stat(api: Any) -> Mapping[str, Any]:
            url = f"{api.base_url}/v{api.api_version}/containers/{container}/archive"
            answer = api.head(url, params={"path": path}, timeout=_CALL_S)
            self._check(answer)
            text = base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"])
            return dict(json.loads(text))

        try:
            return self._call(stat)
        except NotThere:
            return None

    def get(self, container: str, path: str) -> Iterator[bytes]:
        """A tree of a container as a tar stream; names begin with the path's last part."""

        def get(api: Any) -> Any:
            url = f"{api.base_url}/v{api.api_version}/containers/{container}/archive"
            answer = api.get(url, params={"path": path}, stream=True, timeout=_CALL_S)
            self._check(answer)
            return answer

        answer = self._call(get)
        try:
            pieces = answer.iter_content(_PIECE_BYTES)
            while (piece := self._call(lambda api: next(pieces, b""))) != b"":
                yield piece
        finally:
            answer.close()

    def resize(self, container: str, cols: int, rows: int) -> None:
        """Give a container's terminal another size."""
        self._call(lambda api: api.resize(container, height=rows, width=cols))

    def commit(self, container: str, name: str) -> str:
        """Make an image of a container as it is now, with its labels; its name."""
        repository, _, tag = name.partition(":")
        self._call(lambda api: api.commit(container, repository=repository, tag=tag))
        return name

    def remove_container(self, container: str) -> None:
        """Kill and remove a container with its anonymous volumes; one that is not there is fine."""
        self._remove(lambda api: api.remove_container(container, v=True, force=True))

    # --- networks and volumes ---

    def make_network(self, name: str, labels: Mapping[str, str], opts: Mapping[str, str]) -> None:
        """Make a bridge network."""
        driver = "nat" if self._options.os == "windows" else "bridge"

        def make(api: Any) -> None:
            api.create_network(name, driver=driver, options=dict(opts), labels=dict(labels))

        self._call(make)

    def join_network(self, container: str, network: str) -> None:
        """Attach a container to a further network."""
        self._call(lambda api: api.connect_container_to_network(container, network))

    def make_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a local volume."""
        self._call(lambda api: api.create_volume(name, labels=dict(labels)))

    def remove_network(self, name: str) -> None:
        """Remove a network; one that is not there is fine."""
        self._remove(lambda api: api.remove_network(name))

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is not there is fine."""
        self._remove(lambda api: api.remove_volume(name, force=True))

    def _remove(self, call: Callable[[Any], object]) -> None:
        try:
            self._call(call)
        except NotThere:
            return

    def labelled(self, label: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        """(kind, id, labels) of containers, then networks, volumes and images with a label."""
        only = {"label": [label]}
        for one in self._call(lambda api: api.containers(all=True, filters=only)):
            yield "container", one["Id"], one.get("Labels") or {}
        for one in self._call(lambda api: api.networks(filters=only)):
            yield "network", one["Id"], one.get("Labels") or {}
        for one in self._call(lambda api: api.volumes(filters=only)).get("Volumes") or ():
            yield "volume", one["Name"], one.get("Labels") or {}
        for one in self._call(lambda api: api.images(filters=only)):
            yield "image", one["Id"], one.get("Labels") or {}

    # --- images ---

    def has_image(self, image: str) -> bool:
        """Whether the engine has an image."""
        try:
            self._call(lambda api: api.inspect_image(image))
        except NotThere:
            return False
        return True

    def pull(self, image: str, auths: Sequence[Auth], tell: Callable[[bytes], object]) -> None:
        """Pull an image and `tell` about it, one line per layer and step, without progress bars.

        Raises: DriverError with the registry's reason.
        """
        host = registry(image)
        login = next((auth for auth in auths if canonical_host(auth.host) == host), None)
        config = {"username": login.username, "password": login.password} if login else {}
        name = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"

        def pull(api: Any) -> None:
            # an empty configuration keeps the SDK from looking for this user's own logins
            events = api.pull(name, stream=True, decode=True, auth_config=config)
            for event in events:
                if "error" in event:
                    raise DriverError(f"cannot pull {image}: {event['error']}")
                if "progressDetail" not in event or not event["progressDetail"]:
                    layer = f"{event['id']}: " if "id" in event else ""
                    tell(f"{layer}{event.get('status', '')}\n".encode())

        self._call(pull)

    def images(self) -> list[Mapping[str, Any]]:
        """Images as the engine lists them."""
        return list(self._call(lambda api: api.images()))

    def image_ids_in_use(self) -> set[str]:
        """Ids of images that a container stands on."""
        return {one["ImageID"] for one in self._call(lambda api: api.containers(all=True))}

    def remove_image(self, name: str) -> None:
        """Remove an image. Raises: DriverError, also while a container uses it."""
        self._remove(lambda api: api.remove_image(name))

    # --- the connection ---

    def wait_until_back(self, limit_s: float, stopped: Callable[[], bool]) -> None:
        """Wait for an engine that is away. Raises: EngineAway after `limit_s` or when stopped."""
        deadline = time.monotonic() + limit_s
        pause = 0.1
        while True:
            try:
                return self.ping()
            except EngineAway:
                if stopped() or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _api(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._options)
                # an engine object that is forgotten must not leave open sockets behind
                weakref.finalize(self, self._client.close)
            return self._client

    def _call(self, call: Callable[[Any], Answer]) -> Answer:
        """Call the SDK, with its many errors made ours."""
        import docker.errors
        import requests
        import urllib3.exceptions

        try:
            return call(self._api())
        except docker.errors.NotFound as fault:
            raise NotThere(_explained(fault)) from fault
        except docker.errors.APIError as fault:
            text = _explained(fault)
            raise PathUnseen(text) if "bind source path" in text else DriverError(text) from fault
        except (
            docker.errors.DockerException,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as fault:
            raise EngineAway(_away(self.address, fault)) from fault


def _connect(options: Options) -> Any:
    """A client that speaks the engine's version of the protocol."""
    import docker
    from docker.constants import MINIMUM_DOCKER_API_VERSION

    from agents.drivers.docker_transport import UnixAdapter

    tls = _certificates(options)
    address = options.docker_host.replace("tcp://", "https://" if tls else "tcp://", 1)
    pool = 4 * options.concurrency + 8

    def client(version: str) -> Any:
        made = docker.APIClient(
            address, version=version, timeout=_CALL_S, tls=tls or False, max_pool_size=pool
        )
        # neither proxies nor other certificates of the agent's environment are for the engine
        made.trust_env = False
        if address.startswith("unix://"):
            path = address.replace("unix://", "http+unix://", 1)
            made.mount("http+docker://", UnixAdapter(path, _CALL_S, max_pool_size=pool))
        return made

    # asking for the version takes no version
    with contextlib.closing(client(MINIMUM_DOCKER_API_VERSION)) as any_version:
        version = any_version.version(api_version=False)["ApiVersion"]
    return client(version)


def _certificates(options: Options) -> Any:
    if not (options.docker_cert_path or options.docker_tls_verify):
        return None
    import docker.tls

    folder = Path(options.docker_cert_path or "~/.docker").expanduser()
    return docker.tls.TLSConfig(
        client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
        ca_cert=str(folder / "ca.pem") if options.docker_tls_verify else None,
        verify=options.docker_tls_verify,
    )


def _explained(fault: Any) -> str:
    return str(getattr(fault, "explanation", "") or fault).strip()


def _away(address: str, fault: Exception) -> str:
    text = str(fault)
    for sign, reason in (
        ("Permission denied", "permission denied"),
        ("No such file", "there is no such socket"),
        ("Connection refused", "connection refused"),
    ):
        if sign in text:
            return f"cannot reach the Docker engine at {address}: {reason}"
    return f"cannot reach the Docker engine at {address}: {text}"


def logins(path: str) -> tuple[Auth, ...]:
    """The logins of a Docker config.json. Raises: DriverError if it cannot be read."""
    if not path:
        return ()
    try:
        data = json.loads(Path(path).expanduser().read_text())
        auths = data.get("auths") or {}
        return tuple(auth for host, one in auths.items() if (auth := _login(host, one)))
    except (OSError, ValueError, AttributeError) as fault:
        raise DriverError(f"docker-config {path}: {fault}") from fault


def _login(host: str, entry: Mapping[str, str]) -> Auth | None:
    """One entry; `auth` (base64 of user:password) wins, a bad one is left out."""
    user, password = entry.get("username", ""), entry.get("password", "")
    try:
        text = base64.b64decode(entry.get("auth", ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if text:
        user, _, password = text.partition(":")
    return Auth(canonical_host(host), user, password) if user else None


def tar_stream(root: Path, below: str) -> Iterator[bytes]:
    """The tree at `root` as a tar stream whose names start with `below`, in big pieces."""
    import os

    reader, writer = os.pipe()
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with os.fdopen(writer, "wb", 256 * 1024) as pipe:
                _write_tree(pipe, root, below)
        except BaseException as fault:
            failure.append(fault)

    thread = threading.Thread(target=write, name="tar", daemon=True)
    thread.start()
    with os.fdopen(reader, "rb", 0) as pipe:
        while piece := pipe.read(256 * 1024):
            yield piece
    thread.join()
    if failure:
        raise DriverError(f"cannot pack the workspace: {failure[0]}")


def _write_tree(pipe: IO[bytes], root: Path, below: str) -> None:
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(root.iterdir()):
            tar.add(entry, arcname=f"{below}/{entry.name}" if below else entry.name)
