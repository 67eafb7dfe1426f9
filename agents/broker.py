"""The connection that tickets come over: as patient and as secure as the one to the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from celery.app.amqp import AMQP
from kombu import Connection

from agents.link import next_try_s
from agents.options import Options
from pipeline import routing

#: The transport option that says how long a wait may become, in seconds.
LONGEST: Final = "longest_wait_s"
_LONGEST_S: Final = 15.0
#: How often somebody who waits looks whether the worker is to stop.
_LOOK_S: Final = 1.0


def secured(url: str, options: Options) -> str:
    """A Redis's address, or several, with the options for TLS where it does not say itself."""
    wanted = {"ssl_cert_reqs": "none" if options.skip_verify else "required"}
    if options.ca_file:
        wanted["ssl_ca_certs"] = options.ca_file
    if options.client_cert:
        wanted |= {"ssl_certfile": options.client_cert, "ssl_keyfile": options.client_key}
    return routing.secured(url, wanted)


class PatientConnection(Connection):
    """A broker's connection whose waits double up to a cap, each a little different.

    Celery's own would all come back at the same moments, and end in other words.
    """

    def ensure_connection(
        self,
        errback: Callable[..., Any] | None = None,
        max_retries: int | None = None,
        *_: Any,
        callback: Callable[[], Any] | None = None,
        **__: Any,
    ) -> PatientConnection:
        """Return once connected; `callback` is called every second and may raise to give up."""
        del errback, max_retries  # it is told here, and never given up
        longest_s = (self.transport_options or {}).get(LONGEST, _LONGEST_S)
        rounds = tries = 0
        while not self.connected:
            try:
                self._connection_factory()
            except self.recoverable_connection_errors as fault:
                self.maybe_switch_next()  # of several addresses each is tried before the wait
                if self.completes_cycle(tries):
                    rounds += 1
                    reason = f"Redis: {fault or type(fault).__name__}"
                    _wait(next_try_s(rounds, reason, longest_s, longest_s), callback)
                tries += 1
        return self


def _wait(seconds: float, callback: Callable[[], Any] | None) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if callback is not None:
            callback()
        time.sleep(min(left, _LOOK_S))


class Amqp(AMQP):
    """Celery's, with connections like that."""

    Connection = PatientConnection
