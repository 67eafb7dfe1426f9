"""Runs steps in containers: one network per stage, one container per step, one shared workspace.

A local engine is given the checkout itself; an engine that does not see this host's disk gets it
once as a tar stream into a volume. The next containers are made while one runs, a container's
output is followed from before its start, and everything carries labels, so that another life of
the agent finds what was left.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from agents import results
from agents.cache import shim
from agents.cache.box import Box, FolderBox, make_folder
from agents.cache.container import PATIENCE_S, ContainerBox, places, tar_of
from agents.cache.desk import Counter, Desk, Served
from agents.drivers import docker_leftovers as leftovers
from agents.drivers.base import DriverError, Process, Room, Sink
from agents.drivers.docker_cache import Usage, clean
from agents.drivers.docker_container import (
    GO,
    SCRIPT_PATH,
    TOOLS_PATH,
    WINDOWS,
    Site,
    body,
    checkout_folder,
    docker_variables,
    is_long,
    labels,
    reaches_engine,
    script,
    volume_name,
)
from agents.drivers.docker_engine import (
    Engine,
    NotThere,
    PathUnseen,
    logins,
    tar_stream,
)
from agents.drivers.docker_process import DockerProcess
from agents.drivers.docker_shell import DockerShell, keep_image, shell_body
from agents.drivers.docker_stream import Stream
from agents.hooks import present_files
from agents.image_names import is_latest
from agents.option_table import Options
from pipeline.spec import STEP, Auth, StageSpec, StepSpec

log = structlog.get_logger(__name__)

_MAKERS: Final = 2
_REMOVERS: Final = 4


def owner_name(options: Options) -> str:
    """What objects of this agent are labelled with: the same in every life of the agent."""
    text = f"{socket.gethostname()}:{options.state_dir.expanduser().absolute()}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class DockerDriver:
    """Runs docker stages on the engine the options name."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engine = Engine(options)
        self._owner = owner_name(options)
        self._disk = _Disk(self._engine)
        self._desk = Desk(options)
        self._usage = Usage(options.state_dir.expanduser() / "images.json")

    @property
    def engine(self) -> Engine:
        """The engine, for those who clean it or look into it."""
        return self._engine

    def clean(self) -> None:
        """Keep the engine's images within the bounds of the options; remove what has expired."""
        clean(self._engine, self._options, self._usage)

    def check(self) -> None:
        """Raises: DriverError if the engine does not answer or a login file is wrong."""
        self._engine.ping()
        logins(self._options.docker_config)

    def sweep(self) -> None:
        """Remove containers, networks and volumes that earlier lives of this agent left."""
        leftovers.sweep(self._engine, self._owner)

    def furnish(self, room: Room) -> None:
        """Containers are made per step."""

    def open(self, spec: StageSpec, room: Room) -> DockerSession:
        """Begin to make the stage's network and volumes. Raises: DriverError."""
        auths = (*spec.auths, *logins(self._options.docker_config))
        marks = labels(spec, self._owner, time.time())
        return DockerSession(
            self._engine,
            replace(self._options, files=present_files(self._options)),
            self._disk,
            self._usage,
            self._desk,
            spec,
            room,
            marks,
            auths,
        )


class _Disk:
    """Whether the engine sees this host's files, and files made there can be removed here."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._shared: bool | None = None

    def shared(self) -> bool:
        """Until an engine was seen to refuse a path of ours, the answer depends on its users."""
        with self._lock:
            if self._shared is None:
                options = " ".join(self._engine.info().get("SecurityOptions") or ())
                plain_root = os.geteuid() == 0 and "name=userns" not in options
                self._shared = plain_root or "name=rootless" in options
            return self._shared

    def unseen(self) -> None:
        """Note that the engine did not find a path of this host."""
        with self._lock:
            self._shared = False


@dataclass(frozen=True, slots=True)
class _Made:
    """A container that waits for its turn. `place`: the checkout's inode it was started with."""

    container: str
    step: StepSpec
    environ: Mapping[str, str]
    stream: Stream
    told: tuple[bytes, ...] = ()
    place: int = 0


class DockerSession:
    """One stage attempt in an engine."""

    def __init__(
        self,
        engine: Engine,
        options: Options,
        disk: _Disk,
        usage: Usage,
        desk: Desk,
        spec: StageSpec,
        room: Room,
        marks: Mapping[str, str],
        auths: tuple[Auth, ...],
    ) -> None:
        self._engine = engine
        self._options = options
        self._disk = disk
        self._desk = desk
        self._spec = spec
        self._room = room
        self._auths = auths
        self._labels = marks
        self._usage = usage
        self._lock = threading.Lock()
        self._fill_lock = threading.Lock()
        self._filled = False
        self._closed = False
        self._count = itertools.count(1)
        self._pulled: set[str] = set()
        self._containers: list[str] = []
        #: The container a step was last started in.
        self._ran: dict[int, str] = {}
        self._tools: dict[str, Path] = {}
        self._counters: list[Counter] = []
        self._volumes: list[str] = []
        self._processes: list[DockerProcess] = []
        self._shells: list[DockerShell] = []
        self._ahead: dict[int, Future[_Made]] = {}
        #: A step that gets at the engine may make the image of the next one.
        self._looks_ahead = not reaches_engine(spec, options)
        self._makers = ThreadPoolExecutor(_MAKERS, thread_name_prefix="docker-make")
        self._site: Future[Site] = self._makers.submit(self._set_up)

    # --- verbs ---

    def prepare(self, step: StepSpec, environ: Mapping[str, str], *, at_once: bool = False) -> None:
        """Make the step's container in the background, its image pulled if need be."""
        with self._lock:
            if self._looks_ahead and not self._closed and step.number not in self._ahead:
                self._ahead[step.number] = self._makers.submit(
                    self._make_ahead, step, dict(environ)
                )

    def start(self, step: StepSpec, environ: Mapping[str, str], sink: Sink) -> Process:
        """Start the step's container, the prepared one if it fits. Raises: DriverError."""
        made = self._prepared(step, environ)
        if made is None:
            made = self._make(step, environ, sink.write)
        for line in made.told:
            sink.write(line)
        try:
            if step.kind == STEP:
                self._fill_workspace(made.container)
            if not made.place:
                self._engine.start(made.container)
            if step.commands:
                made.stream.send(GO)
            box = self._box(made.container) if self._has_tools(step) else None
        except (DriverError, OSError) as fault:
            made.stream.close()
            raise DriverError(str(fault)) from fault
        self._usage.note(step.image)
        process = DockerProcess(
            self._engine,
            made.container,
            made.stream,
            sink,
            limited=bool(step.mem_limit_bytes or self._options.memory),
        )
        with self._lock:
            self._ran[step.number] = made.container
            self._processes.append(process)
            late = self._closed
        if late:
            process.kill_now()
        if box is None:
            return process
        where = places(self._engine, made.container)
        counter = self._desk.open(self._spec, box, where, self._room.tools)
        with self._lock:
            self._counters.append(counter)
        return Served(process, self._desk, counter)

    def collect(self, step: StepSpec) -> Iterator[tuple[str, bytes]]:
        """Read the step's reports: on this host's disk, else out of its container."""
        patterns = results.clean(step.reports)
        if self._site.result().source:
            yield from results.on_disk(self._room.source, patterns)
            return
        checkout, container = checkout_folder(self._spec), self._ran[step.number]
        for start in results.prefixes(patterns):
            path = posixpath.join(checkout, start) if start else checkout
            if self._engine.stat(container, path) is not None:
                tree = self._engine.get(container, path)
                yield from results.in_tar(tree, start, patterns)

    def shell(
        self, step: StepSpec, environ: Mapping[str, str], cols: int, rows: int
    ) -> DockerShell:
        """Open a shell in a container like the step's, with the files that one has left.

        Raises: DriverError.
        """
        with self._lock:
            ran = self._ran[step.number]
        site, name = self._site.result(), f"{self._room.key}-shell-{next(self._count)}"
        image = keep_image(self._engine, ran, f"ciserver-debug:{name}")
        content = shell_body(self._spec, step, environ, self._options, site, image)
        try:
            container = self._engine.create(name, content)
        except DriverError:
            if image:
                leftovers.remove(self._engine, "image", image)
            raise
        shell = DockerShell(self._engine, container, image)
        with self._lock:
            self._containers.append(container)
            self._shells.append(shell)
        shell.start(() if step.network_mode else self._options.networks)
        shell.resize(cols, rows)
        return shell

    def close(self) -> None:
        """Kill what still runs: services, detached steps, everything."""
        with self._lock:
            self._closed = True
            processes, shells = list(self._processes), list(self._shells)
            for counter in self._counters:
                counter.close()
        for shell in shells:
            shell.end()
        for process in processes:
            process.kill_now()
        for process in processes:
            process.wait()

    def remove(self) -> None:
        """Remove the stage's containers, volumes, network and files."""
        self.close()
        self._makers.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            ahead, self._ahead = list(self._ahead.values()), {}
            containers, self._containers = self._containers, []
            volumes, self._volumes = self._volumes, []
        for future in ahead:
            _drop(future)
        with ThreadPoolExecutor(_REMOVERS, thread_name_prefix="docker-remove") as removers:
            for container in containers:
                removers.submit(leftovers.remove, self._engine, "container", container)
        leftovers.remove(self._engine, "network", self._room.key)
        for volume in volumes:
            leftovers.remove(self._engine, "volume", volume)
        shutil.rmtree(self._room.root, onerror=_say_what_stays)

    # --- the place ---

    def _set_up(self) -> Site:
        """Make the network and the temporary volumes; find out how the checkout gets there."""
        key = self._room.key
        self._engine.make_network(key, self._labels, self._options.network_opts)
        source = str(self._room.source) if self._disk.shared() else ""
        site = Site(key, key, f"{key}-workspace", source, self._labels)
        for volume in self._spec.volumes:
            if volume.kind == "temp":
                self._make_volume(volume_name(site, volume))
        if not source or self._spec.workspace.path:
            self._make_volume(site.volume)
        return site

    def _make_volume(self, name: str) -> None:
        with self._lock:
            self._volumes.append(name)
        self._engine.make_volume(name, self._labels)

    def _without_disk(self) -> Site:
        """The place again, for an engine that turned out not to see this host's files."""
        with self._lock:
            site = self._site.result()
            if not site.source:
                return site
            self._disk.unseen()
            changed: Future[Site] = Future()
            changed.set_result(replace(site, source=""))
            self._site = changed
            known = site.volume in self._volumes
        if not known:
            self._make_volume(site.volume)
        return changed.result()

    def _fill_workspace(self, container: str) -> None:
        """Bring the checkout into the workspace volume, once, where it is not there by itself."""
        if self._site.result().source:
            return
        with self._fill_lock:
            source = self._room.source
            if not self._filled and source.is_dir() and any(source.iterdir()):
                below = self._spec.workspace.path.replace("\\", "/").strip("/")
                tree = tar_stream(source, below)
                self._engine.put(container, self._spec.workspace.base, tree)
            self._filled = True

    # --- containers ---

    def _prepared(self, step: StepSpec, environ: Mapping[str, str]) -> _Made | None:
        """The container made ahead, if it was made well and with this environment."""
        with self._lock:
            future = self._ahead.pop(step.number, None)
        if future is None:
            return None
        try:
            made = future.result()
        except DriverError as fault:
            # tried again in the open, where the step's log shows what goes wrong
            log.debug("docker.prepare-failed", step=step.name, reason=str(fault))
            return None
        same = made.step == step and made.environ == environ
        if same and made.place in (0, self._place()):
            return made
        made.stream.close()
        return None

    def _place(self) -> int:
        """What tells the checkout's folder from another one put into its place meanwhile."""
        try:
            return self._room.source.stat().st_ino
        except FileNotFoundError:
            return -1

    def _make_ahead(self, step: StepSpec, environ: Mapping[str, str]) -> _Made:
        """Make a container; one with commands is started as well and waits in its shell."""
        told: list[bytes] = []
        made = replace(self._make(step, environ, told.append), told=tuple(told))
        if not step.commands or step.kind != STEP:
            return made
        place = self._place()
        try:
            self._engine.start(made.container)
        except DriverError:
            made.stream.close()
            raise
        return replace(made, place=place)

    def _make(
        self, step: StepSpec, environ: Mapping[str, str], tell: Callable[[bytes], object]
    ) -> _Made:
        site = self._site.result()
        if not self._options.docker_stream_pull:
            tell = _nothing
        self._refresh_image(step, tell)
        try:
            container = self._create(step, environ, site)
        except PathUnseen:
            container = self._create(step, environ, self._without_disk())
        except NotThere:
            if step.pull == "never":
                raise
            self._engine.pull(step.image, self._auths, tell)
            container = self._create(step, environ, site)
        text = script(step, environ, self._spec.os)
        if self._has_tools(step) and is_long(text):
            self._engine.put(container, "/", [tar_of({SCRIPT_PATH.lstrip("/"): text}, 0o644)])
        if self._has_tools(step) and container not in self._tools:
            programs = tar_of(shim.programs(TOOLS_PATH, PATIENCE_S), 0o755, TOOLS_PATH.lstrip("/"))
            self._engine.put(container, "/", [programs])
        if not step.network_mode:
            for network in self._options.networks:
                self._engine.join_network(container, network)
        return _Made(container, step, dict(environ), self._engine.attach(container))

    def _create(self, step: StepSpec, environ: Mapping[str, str], site: Site) -> str:
        name = f"{site.key}-{step.number}-{next(self._count)}"
        tools = self._room.root / "tools" / name if site.source and self._has_tools(step) else None
        if tools is not None:
            shim.install(tools, TOOLS_PATH)
            make_folder(tools)
        environ = {**docker_variables(site), **environ}
        content = body(self._spec, step, environ, self._options, site, str(tools or ""))
        container = self._engine.create(name, content)
        with self._lock:
            self._containers.append(container)
            if tools is not None:
                self._tools[container] = tools
        return container

    def _has_tools(self, step: StepSpec) -> bool:
        """Whether a step has commands that may call the agent's; those are shell scripts."""
        return bool(step.commands) and self._spec.os != WINDOWS

    def _box(self, container: str) -> Box:
        """The box that the step of a container asks through."""
        with self._lock:
            tools = self._tools.get(container)
        if tools is None:
            return ContainerBox(self._engine, container, TOOLS_PATH)
        return FolderBox(tools)

    def _refresh_image(self, step: StepSpec, tell: Callable[[bytes], object]) -> None:
        """Pull before the container is made, as the step's policy says; once per stage."""
        wanted = step.pull == "always" or (not step.pull and is_latest(step.image))
        if not wanted or step.image in self._pulled:
            return
        try:
            self._engine.pull(step.image, self._auths, tell)
        except DriverError as fault:
            if step.pull == "always" or not self._engine.has_image(step.image):
                raise
            tell(f"[ci] {fault}; going on with the image this host has\n".encode())
        self._pulled.add(step.image)


def _drop(future: Future[_Made]) -> None:
    """Let go of a container that was made ahead in vain."""
    if not future.cancelled() and future.exception() is None:
        future.result().stream.close()


def _nothing(line: bytes) -> None:
    """Say nothing about a pull."""


def _say_what_stays(_call: object, path: str, fault: tuple[object, BaseException, object]) -> None:
    if not isinstance(fault[1], FileNotFoundError):
        log.warning("docker.file-stays", path=path, reason=str(fault[1]))
