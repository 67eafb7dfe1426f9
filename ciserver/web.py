"""The web process: `python -m ciserver.web`. The supervisor hands it a listening socket."""

from __future__ import annotations

import socket
import sys
import threading

import uvicorn

from ciserver import env

#: How long open requests may take to end once the process was told to stop.
GRACE_S = 3


def main(arguments: list[str]) -> None:
    """Serve until told to stop, on the socket whose descriptor is given, else on CISERVER_BIND."""
    from ciserver.asgi import application

    settings = env.read()
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=75,
    )
    listeners = [socket.socket(fileno=int(number)) for number in arguments]
    stop = threading.Event()
    beats = _beats(stop)
    uvicorn.Server(config).run(sockets=listeners or None)
    stop.set()
    beats.join(timeout=GRACE_S)


def _beats(stop: threading.Event) -> threading.Thread:
    """Let the leases' clock run for as long as this process takes reports."""
    from builds import clock

    thread = threading.Thread(target=clock.beat_forever, args=(stop,), name="beats", daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    main(sys.argv[1:])
