"""Messages of the agent protocol (`/agent/v1`, JSON over HTTP, Bearer token).

Read and written with `pipeline.spec.to_json` and `from_json`. Every message carries `v`; unknown
fields are
ignored, so an agent one minor release older than the server works. Messages carry ages in
milliseconds,
never times: the server stamps by its own clock.

| call                                        | body               | answer
     |
| `POST agents`                               | Join, join token   | 200 Joined
     |
| `PUT agents/{id}`                           | Presence           | 200 Orders (held up to
`hold_s`)    |
| `DELETE agents/{id}?reason=`                |                    | 204
     |
| `POST claims`                               | Claim              | 200 Claimed, or 204: nothing
to run |
| `PUT leases/{lease}`                        | Report             | 200 Pace
     |
| `POST leases/{lease}/steps/{n}/log?from=P`  | zstd bytes         | 200 Appended
     |
| `POST leases/{lease}/steps/{n}/reports`     | zstd bytes         | 200 Taken
     |
| `PUT leases/{lease}/artifacts/{path}?…`     | bytes (see Kept)   | 200 Kept
     |
| `GET leases/{lease}/artifacts?name=`        |                    | 200 Artifacts
     |
| `GET leases/{lease}/artifacts/{path}?offset=P` |                 | 200 bytes
     |
| `GET leases/{lease}/steps/{n}/shell`        | a websocket, see Shell | 101
     |

Errors are `{"message": text, "code": text}`: 400 malformed, 401 unknown or revoked token, 403 not
this
agent's, 404, 409 conflict, 410 the lease is closed for reports, 503 with Retry-After try again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.spec import Pairs, StageSpec, Strings

PROTOCOL: Final = 1
#: The oldest protocol that this release still speaks with the other side.
OLDEST: Final = 1
PREFIX: Final = "/agent/v1/"
#: The largest log batch a server accepts, unpacked.
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
#: A line longer than this is cut into lines of this length.
MAX_LINE_BYTES: Final = 64 * 1024
#: What the reports of one step may have together, unpacked. They travel as one zstd frame of a
#: header, `{"files": [[name, size], …]}` and LF, and the files one after the other.
MAX_REPORTS_BYTES: Final = 16 * 1024 * 1024
#: An artifact travels in parts of at most so many bytes, either way.
MAX_PART_BYTES: Final = 4 * 1024 * 1024
LOG_CONTENT_TYPE: Final = "application/zstd"
#: So many bytes of a shell's output may be on their way to its viewer, and of input to the shell,
#: before the other end has said that it `took` some.
SHELL_WINDOW_BYTES: Final = 128 * 1024
SHELL_INPUT_BYTES: Final = 64 * 1024
#: The largest frame of a shell, either way.
SHELL_FRAME_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class Join:
    """An agent introduces itself. `labels` are what its stages may ask for; `types` what it can
    run."""

    name: str
    version: str
    os: str = "linux"
    arch: str = "amd64"
    variant: str = ""
    kernel: str = ""
    labels: Pairs = field(default_factory=dict)
    types: Strings = ("exec",)
    capacity: int = 2
    #: The id of an agent this one was before (its state file): the server replaces that row's
    #: token.
    previous: int = 0
    previous_token: str = ""
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Joined:
    """The agent's own identity and where its tickets come from."""

    id: int
    token: str = field(repr=False)
    broker_url: str = field(repr=False)
    queues: Strings = ()
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Presence:
    """A sign of life. `busy` counts leases held; the server holds the call up to `hold_s` for
    news."""

    busy: int = 0
    leases: Strings = ()
    #: "idle", "busy" or "draining", and why it drains.
    state: str = "idle"
    reason: str = ""
    hold_s: float = 0.0
    version: str = ""
    load: float = 0.0
    disk_free_bytes: int = 0
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Orders:
    """What the server wants: `action` is continue, drain or shutdown; `cancelled` lists leases to
    stop."""

    action: str = "continue"
    reason: str = ""
    cancelled: Strings = ()
    queues: Strings = ()
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Claim:
    """The one question: what may I run now? The same `nonce` gets the same answer, and no other
    does.

    `environ` is the agent's plain environment for substitution and steps; `secrets` the names of
    secrets
    the agent itself holds.
    """

    nonce: str
    queues: Strings = ()
    environ: Pairs = field(default_factory=dict)
    secrets: Strings = ()
    #: The id of the one stage this agent is for; 0: any.
    only: int = 0
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease on one stage attempt. `report_s` is how often a report is due at the latest."""

    lease: str
    spec: StageSpec
    report_s: float = 15.0
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class StepReport:
    """A step as the agent sees it. Ages count back from the moment of sending; -1: not yet.

    `log_end` is the position after the step's last line, or -1 while it may still grow.
    """

    number: int
    status: str
    exit_code: int = 0
    error: str = ""
    started_ms: int = -1
    stopped_ms: int = -1
    log_end: int = -1


@dataclass(frozen=True, slots=True)
class LogPart:
    """A log batch that travels in a report: base64 of what a log call would carry."""

    step: int
    from_: int
    data: str


@dataclass(frozen=True, slots=True)
class HoldReport:
    """A step that has failed and is kept for debugging; until then it counts as running.

    It ends in `left_ms` unless somebody works in its shell.
    """

    step: int
    exit_code: int = 0
    left_ms: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """A whole snapshot of a stage attempt; order and repeats do not matter.

    `begun`: a step other than the clone may start once this is acknowledged. `done`: the agent has
    finished
    with the stage, all its log ends are known; `status` then is final.
    """

    status: str
    begun: bool = False
    done: bool = False
    exit_code: int = 0
    error: str = ""
    #: Which rule of the agent's policy refused the stage, if one did.
    refused: str = ""
    started_ms: int = -1
    stopped_ms: int = -1
    steps: tuple[StepReport, ...] = ()
    logs: tuple[LogPart, ...] = ()
    holds: tuple[HoldReport, ...] = ()
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Pace:
    """The answer to a report. `next` gives per step number the position the server has, for its
    logs; `release` lists steps that nobody wants kept any more."""

    cancel: bool = False
    pace_ms: int = 1000
    next: Mapping[str, int] = field(default_factory=dict)
    release: tuple[int, ...] = ()
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to a log batch: the server has every line before `next`, durably."""

    next: int
    cancel: bool = False
    pace_ms: int = 1000
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to a step's reports: how many tests they had."""

    tests: int = 0
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to a part of an artifact: the server has every byte before `next`.

    A part carries `upload` (16 hexadecimal digits of the agent's choice) and `offset`; one at 0
    begins anew, one that is not at the end of what is there changes nothing. The last one, which
    may be empty, also carries `size` and `sha256` of the whole, `mode` (decimal) and `expire_s` (0:
    as the server is set), and with it the artifact is there, instead of an earlier one.
    """

    next: int
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file that a stage of the build pushed."""

    path: str
    size_bytes: int = 0
    sha256: str = ""
    mode: int = 0


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The file of a name, or all files below it, in the order of their paths."""

    files: tuple[ArtifactFile, ...] = ()
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Shell:
    """A word on a shell's websocket, as a text frame; its bytes are binary frames.

    The agent opens the socket when it begins to keep a failed step and opens it again when it is
    lost. Between it and a viewer the server passes on:

    - to the agent: `attach` (`cols`, `rows`; `text` names the viewer: from now on it is his),
      `resize`, `took` (so many `bytes` of output were shown), `detach`, `end` (`text`: who wants
      it), and input as bytes;
    - to the viewer: `attached` (`text` as in `attach`; what the shell has written lately follows as
      if it were new), `took` (so many `bytes` of input reached the shell), `ended` (`text` says
      why, `code` is the shell's exit code; -1: it did not end by itself), and output as bytes.

    Both ends keep to the windows above. The server adds `waiting` for the viewer: his agent is not
    connected just now. Whoever reads a kind he does not know ignores it.
    """

    kind: str
    text: str = ""
    cols: int = 0
    rows: int = 0
    bytes: int = 0
    code: int = -1
    v: int = PROTOCOL
