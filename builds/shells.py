"""Websockets of shells in failed steps: a viewer's, his agent's, and what both keep to.

Their frames are `pipeline.wire.Shell` and bytes. A viewer's every `attach` begins a talk, named by
his visit and a count; parcels of other talks are not his. Where one is missing the talk begins
anew, and the agent shows again what was there lately.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from django.conf import settings
from django.http import SimpleCookie

from builds import claims, debug
from builds.api.auth import bearer, scope_header, scope_user
from builds.consumers import GUEST, NORMAL, NOT_FOUND, Denied, Socket, admit
from builds.models import User
from builds.relay import Lost, Parcel, Relay
from pipeline.errors import UserError
from pipeline.spec import from_json, to_json
from pipeline.wire import SHELL_FRAME_BYTES, SHELL_INPUT_BYTES, SHELL_WINDOW_BYTES, Shell

FORBIDDEN: Final = 4403
IN_USE: Final = 4409
TOO_MUCH: Final = 4413
#: How often both ends show that they are there, and after what silence a talk begins anew.
PING_S: Final = 5.0
SILENT_S: Final = 12.0
#: How often rights and the state of the step are looked up.
BEAT_S: Final = 15.0
_AWAY_S: Final = 2.0
_MAX_SIZE: Final = 999
_log = structlog.get_logger(__name__)


class _Over(Exception):
    """The socket's work is done; `code` closes it."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class _Bounded:
    """How many bytes are on their way. Ends keep to the window; who does not is sent away."""

    def __init__(self, window: int) -> None:
        self._window, self._under_way = window, 0

    def restart(self) -> None:
        """Nothing is on its way."""
        self._under_way = 0

    def add(self, size: int) -> None:
        """More is. Raises: _Over."""
        self._under_way += size
        if self._under_way > 2 * self._window or size > 2 * SHELL_FRAME_BYTES:
            raise _Over(TOO_MUCH, "more bytes at a time than the other end takes")

    def remove(self, size: int) -> None:
        """Some have arrived."""
        self._under_way = max(0, self._under_way - max(0, size))


class _TalkSocket(Socket):
    """What both sockets share: words as text frames, bytes as binary ones, an end with a reason."""

    relay: Relay
    _open = False

    async def feed(self) -> None:
        """Pass on what comes from the other end."""
        async with self.make_relay() as self.relay:
            self._open = True
            try:
                await self.talk()
            except _Over as over:
                await self.end(over)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pass on what comes from this end."""
        if not self._open:
            return
        try:
            if bytes_data is not None:
                await self.take_bytes(bytes_data)
            else:
                await self.take_word(_word(text_data or ""))
        except Lost as lost:
            _log.warning("shell.not_passed_on", error=str(lost))
        except _Over as over:
            await self.rest()
            await self.end(over)

    async def say(self, message: Shell) -> None:
        """Send a word to this end."""
        await self.send(text_data=json.dumps(to_json(message), separators=(",", ":")))

    async def end(self, over: _Over) -> None:
        """Close the socket."""
        await self.close(over.code, over.why[:100])

    def make_relay(self) -> Relay:
        raise NotImplementedError

    async def talk(self) -> None:
        raise NotImplementedError

    async def take_bytes(self, data: bytes) -> None:
        raise NotImplementedError

    async def take_word(self, message: Shell) -> None:
        raise NotImplementedError


class ShellSocket(_TalkSocket):
    """`ws/shell/{step}?cols=80&rows=24[&force=1]`: a viewer."""

    visit: debug.Visit | None = None
    _generation = 0
    _expected = 0
    _attached = False
    _asked = _heard = _beaten = 0.0

    def enter(self) -> None:
        """Sit down at the shell. Raises: Denied."""
        hold = debug.find(self._step)
        admit(self.scope, hold.step.stage.build.repo if hold else None)
        user = scope_user(self.scope)
        if hold is None or not isinstance(user, User) or not debug.may(user, hold.step.stage.build):
            raise Denied(FORBIDDEN, "this shell is for those who may write to the repository")
        if _from_page(self.scope) and not scope_header(self.scope, b"origin"):
            raise Denied(FORBIDDEN, "a page has to say where it is from")
        query = parse_qs(self.scope["query_string"].decode("latin1"))
        self._size = _size(query.get("cols", ["80"])[0], query.get("rows", ["24"])[0])
        self._typed = _Bounded(SHELL_INPUT_BYTES)
        self._others: set[str] = set()
        try:
            self.visit = debug.enter(
                hold,
                user,
                address=str((self.scope.get("client") or [""])[0]),
                client="browser" if scope_header(self.scope, b"origin") else "terminal",
                by_force="force" in query,
            )
        except debug.InUse as used:
            raise Denied(IN_USE, str(used)) from used

    async def disconnect(self, code: int) -> None:
        """Stand up."""
        await super().disconnect(code)
        await self._stand_up("the viewer left")

    async def end(self, over: _Over) -> None:
        """Say why, note it, close."""
        await self._stand_up(over.why)
        await super().end(over)

    async def _stand_up(self, why: str) -> None:
        visit, self.visit = self.visit, None
        if visit is not None:
            await database_sync_to_async(debug.leave)(visit, why)

    def make_relay(self) -> Relay:
        """From the agent, to the agent."""
        return Relay(debug.viewer_group(self._step), debug.agent_group(self._step))

    async def talk(self) -> None:
        """Attach, then pass on output until the end."""
        self._beaten = _now()
        await self._attach()
        while True:
            parcel = await self.relay.receive(PING_S)
            if parcel is not None:
                await self._take(parcel)
            if parcel is None or _now() - self._heard > SILENT_S:
                await self._look_around()
            if _now() - self._beaten > BEAT_S:
                await self._beat()

    async def _attach(self) -> None:
        """Begin a talk with the agent."""
        self._generation += 1
        self._expected, self._attached = 0, False
        self._asked = self._heard = _now()
        self._typed.restart()
        cols, rows = self._size
        try:
            self.relay.begin(self._tag)
            await self.relay.send(Shell("attach", text=self._tag, cols=cols, rows=rows))
        except Lost:
            await asyncio.sleep(_AWAY_S)

    async def _look_around(self) -> None:
        """Ask for a sign of life, or begin anew where there was none."""
        if _now() - self._heard > SILENT_S:
            await self.say(Shell("waiting", text="the agent is not connected just now"))
            await self._attach()
        elif self._attached:
            await self._send(Shell("ping"))

    async def _beat(self) -> None:
        self._beaten = _now()
        if self.visit is not None:
            why = await database_sync_to_async(debug.stay)(self.visit)
            if why:
                raise _Over(IN_USE if "elsewhere" in why else NORMAL, why)

    async def _take(self, parcel: Parcel) -> None:
        key = parcel.tag.partition(":")[0]
        if parcel.kind == "ended" and key in ("", self._key):
            await self.say(parcel.message or Shell("ended"))
            raise _Over(NORMAL, parcel.message.text if parcel.message else "")
        if parcel.kind in ("hello", "look"):
            await self._attach()
        elif key and key != self._key and key not in self._others:
            self._others.add(key)  # somebody was here before, or sits here now
            await self._beat()
        elif parcel.tag == self._tag:
            await self._take_mine(parcel)

    async def _take_mine(self, parcel: Parcel) -> None:
        if parcel.number != self._expected or parcel.kind == "gap":
            await self._attach()
            return
        self._expected += 1
        self._heard = _now()
        if parcel.message is None:
            await self.send(bytes_data=parcel.data)
        elif parcel.kind == "attached":
            self._attached = True
            await self.say(parcel.message)
        elif parcel.kind == "took":
            self._typed.remove(parcel.message.bytes)
            await self.say(parcel.message)

    async def take_bytes(self, data: bytes) -> None:
        """Input."""
        if self._attached:
            self._typed.add(len(data))
            await self._send(data=data)

    async def take_word(self, message: Shell) -> None:
        """What a viewer may say."""
        if message.kind == "end":
            await database_sync_to_async(self._release)()
        elif message.kind == "resize":
            self._size = _size(message.cols, message.rows)
            if self._attached:
                await self._send(message)
        elif message.kind == "took" and self._attached:
            await self._send(message)

    async def _send(self, message: Shell | None = None, data: bytes = b"") -> None:
        """Send to the agent; where that fails the talk begins anew."""
        try:
            await self.relay.send(message, data)
        except Lost:
            self._attached, self._heard = False, 0.0

    def _release(self) -> None:
        hold = debug.find(self._step)
        if hold is not None and self.visit is not None:
            user = User.objects.get(pk=self.visit.user_id)
            debug.release(hold, user.username)

    @property
    def _key(self) -> str:
        return self.visit.key if self.visit else ""

    @property
    def _tag(self) -> str:
        return f"{self._key}:{self._generation}"

    @property
    def _step(self) -> int:
        return int(self.scope["url_route"]["kwargs"]["step"])


class AgentShellSocket(_TalkSocket):
    """`agent/v1/leases/{lease}/steps/{n}/shell`: the agent that keeps the step."""

    _step = 0
    _tag = ""
    _expected = 0
    _passing = False
    _looked = 0.0

    def enter(self) -> None:
        """Find the step. Raises: Denied."""
        agent = claims.agent_by_token(bearer(scope_header(self.scope, b"authorization")))
        if agent is None:
            raise Denied(GUEST, "unknown or revoked agent token")
        self._agent = agent
        self._shown = _Bounded(SHELL_WINDOW_BYTES)
        try:
            self._step = self._find()
        except UserError as fault:
            raise Denied(FORBIDDEN, str(fault)) from fault
        except claims.LeaseClosed as fault:
            raise Denied(NOT_FOUND, str(fault)) from fault

    def _find(self) -> int:
        """The id of the step. Raises: claims.NotYours, claims.LeaseClosed."""
        values = self.scope["url_route"]["kwargs"]
        stage = claims.stage_at_work(self._agent, values["lease"])
        found = stage.steps.filter(number=values["step"]).first() if stage.build.debug else None
        if found is None:
            raise claims.NotYours("there is no such step to be debugged")
        return int(found.pk)

    def make_relay(self) -> Relay:
        """From the viewer, to the viewer."""
        return Relay(debug.agent_group(self._step), debug.viewer_group(self._step))

    async def talk(self) -> None:
        """Say that the agent is there, then pass on what the viewer wants."""
        await self.say(Shell("ready"))
        await self._reply(Shell("hello"), "")
        await self._look()
        while True:
            parcel = await self.relay.receive(PING_S)
            if parcel is not None:
                await self._take(parcel)
            if _now() - self._looked > BEAT_S:
                await self._look()

    async def _look(self) -> None:
        """Whether the step is still the agent's, and still to be kept."""
        self._looked = _now()
        try:
            await database_sync_to_async(self._find)()
        except (UserError, claims.LeaseClosed) as fault:
            raise _Over(NOT_FOUND, str(fault)) from fault
        if await database_sync_to_async(debug.is_released)(self._step):
            await self.say(Shell("end", text="somebody ended it"))

    async def _take(self, parcel: Parcel) -> None:
        if parcel.kind == "look":
            await self._look()
        elif parcel.kind == "attach" and parcel.message is not None:
            self._tag, self._expected, self._passing = parcel.tag, 1, False
            self._shown.restart()
            self.relay.begin(parcel.tag)
            await self.say(parcel.message)
        elif parcel.tag == self._tag:
            if parcel.number != self._expected:
                await self._reply(Shell("gap"))
                return
            self._expected += 1
            await self._pass_on(parcel)

    async def _pass_on(self, parcel: Parcel) -> None:
        if parcel.message is None:
            await self.send(bytes_data=parcel.data)
        elif parcel.kind == "ping":
            await self._reply(Shell("pong"))
        else:
            if parcel.kind == "took":
                self._shown.remove(parcel.message.bytes)
            await self.say(parcel.message)

    async def take_bytes(self, data: bytes) -> None:
        """Output; what was under way when another talk began is shown again in that one."""
        if self._passing:
            self._shown.add(len(data))
            await self._reply(data=data)

    async def take_word(self, message: Shell) -> None:
        """What an agent may say."""
        if message.kind == "attached":
            self._passing = self._passing or message.text == self._tag
        if message.kind == "ended":
            await self._reply(message, self._tag if self._passing else "")
        elif self._passing and message.kind in ("attached", "took"):
            await self._reply(message)

    async def _reply(
        self, message: Shell | None = None, tag: str | None = None, data: bytes = b""
    ) -> None:
        """Send to the viewer; what gets lost he misses, and begins anew."""
        try:
            await self.relay.send(message, data, tag)
        except Lost as lost:
            _log.warning("shell.not_passed_on", error=str(lost))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _word(text: str) -> Shell:
    try:
        return from_json(Shell, json.loads(text))
    except ValueError:
        return Shell("")


def _size(cols: Any, rows: Any) -> tuple[int, int]:
    """A terminal's size from a client; nonsense is the usual one."""
    try:
        found = int(cols), int(rows)
    except (TypeError, ValueError):
        return 80, 24
    return (
        found[0] if 0 < found[0] <= _MAX_SIZE else 80,
        found[1] if 0 < found[1] <= _MAX_SIZE else 24,
    )


def _from_page(scope: Any) -> bool:
    """Whether the caller is known by his session cookie alone, which any page would send along."""
    if scope_header(scope, b"authorization"):
        return False
    return settings.SESSION_COOKIE_NAME in SimpleCookie(scope_header(scope, b"cookie"))
