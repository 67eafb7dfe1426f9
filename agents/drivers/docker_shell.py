"""A shell in a container that goes on from where a step's container ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from agents.drivers import docker_leftovers as leftovers
from agents.drivers.base import (
    EXIT_KILLED,
    INTERACTIVE,
    SHELL_READ_BYTES,
    DriverError,
    shell_environ,
)
from agents.drivers.docker_container import WINDOWS, Site, body
from agents.drivers.docker_engine import Engine
from agents.drivers.docker_stream import Plain
from agents.option_table import Options
from pipeline.spec import StageSpec, StepSpec

log = structlog.get_logger(__name__)


class DockerShell:
    """The terminal of a container that runs a shell."""

    def __init__(self, engine: Engine, container: str, image: str) -> None:
        """`image` is removed with the container."""
        self._engine, self._container, self._image = engine, container, image
        self._lock = threading.Lock()
        self._code: int | None = None
        self._rest = b""
        #: Whether all output was read, hence the shell has ended by itself.
        self._over = False
        self._stream: Plain | None = None

    def start(self, networks: Sequence[str]) -> None:
        """Start the container, in further networks. Raises: DriverError."""
        try:
            for network in networks:
                self._engine.join_network(self._container, network)
            self._stream = self._engine.attach_terminal(self._container)
            self._engine.start(self._container)
        except DriverError:
            self.end()
            raise

    def read(self) -> bytes:
        """The next output; empty at the end."""
        if not self._rest and self._stream is not None:
            try:
                self._rest = self._stream.read()
            except OSError as fault:
                log.info("shell.broken", container=self._container, reason=str(fault))
            self._over = not self._rest
        data, self._rest = self._rest[:SHELL_READ_BYTES], self._rest[SHELL_READ_BYTES:]
        return data

    def write(self, data: bytes) -> None:
        """Type. Raises: OSError at the end."""
        if self._stream is not None:
            self._stream.send(data)

    def resize(self, cols: int, rows: int) -> None:
        """Another size of the terminal."""
        try:
            self._engine.resize(self._container, cols, rows)
        except DriverError as fault:
            log.debug("shell.not-resized", container=self._container, reason=str(fault))

    def end(self) -> int:
        """Remove the container and the image it was made from; the shell's exit code."""
        with self._lock:
            if self._code is None:
                self._code = self._exit_code()
                if self._stream is not None:
                    self._stream.close()
                leftovers.remove(self._engine, "container", self._container)
                if self._image:
                    leftovers.remove(self._engine, "image", self._image)
        return self._code

    def _exit_code(self) -> int:
        if not self._over:
            return EXIT_KILLED
        try:
            return self._engine.wait(self._container)
        except DriverError:
            return EXIT_KILLED


def keep_image(engine: Engine, container: str, name: str) -> str:
    """An image of an ended container, with the files it has changed; empty if there can be none."""
    try:
        return engine.commit(container, name)
    except DriverError as fault:
        log.warning("shell.no-image", container=container, reason=str(fault))
        return ""


def shell_body(
    spec: StageSpec,
    step: StepSpec,
    environ: Mapping[str, str],
    options: Options,
    site: Site,
    image: str,
) -> dict[str, Any]:
    """The create call of a shell's container: as the step's, with a terminal."""
    command = ("powershell",) if spec.os == WINDOWS else ("/bin/sh", "-c", INTERACTIVE)
    own = replace(
        step,
        image=image or step.image,
        commands=(),
        entrypoint=command[:1],
        command=command[1:],
    )
    found = body(spec, own, shell_environ(environ), options, site)
    return {**found, "Tty": True, "OpenStdin": True, "AttachStdin": True}
