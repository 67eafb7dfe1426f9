"""Hide secrets in a stream of bytes, whatever way it is cut into chunks.

Terms never contain a line feed, so nothing is held back across the end of a line. What could be the
beginning of a term at the end of a chunk is withheld until more bytes come or the stream ends.
"""

from __future__ import annotations

import base64
import bisect
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

MASK: Final = b"******"
#: Parts of a secret shorter than this are not masked. Source: Drone (reference section 7).
_SHORTEST: Final = 2
#: Encoded forms of very short values would hide half of every log.
_SHORTEST_ENCODED: Final = 6


def terms(values: Iterable[str]) -> list[bytes]:
    """The byte strings to hide for these secrets, longest first.

    Each line of a value, trimmed, and the value as a whole and its lines in base64 (wherever it may
    begin in the encoded text), in URLs and in JSON strings.
    """
    found: set[bytes] = set()
    for value in values:
        parts = {part.strip() for part in value.splitlines()}
        parts = {part for part in parts if len(part.encode()) >= _SHORTEST}
        found.update(part.encode() for part in parts)
        for part in parts | {value, value.strip()}:
            found.update(_encoded(part))
    return sorted(found, key=lambda term: (-len(term), term))


def _encoded(text: str) -> set[bytes]:
    raw = text.encode()
    if len(raw) < _SHORTEST_ENCODED:
        return set()
    forms = {quote(text, safe="").encode(), quote_plus(text).encode(), quote(text).encode()}
    forms.add(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode())
    for offset in range(3):
        forms.update(_base64(raw, offset))
    return {form for form in forms if b"\n" not in form and len(form) >= _SHORTEST_ENCODED}


def _base64(raw: bytes, offset: int) -> tuple[bytes, bytes]:
    """What base64 makes of `raw` at an offset, without the characters its neighbours change."""
    padded = bytes(offset) + raw
    first = (offset * 8 + 5) // 6
    last = len(padded) * 8 // 6
    plain = base64.b64encode(padded)[first:last]
    return plain, plain.replace(b"+", b"-").replace(b"/", b"_")


class Masker:
    """Masks one stream. Not for several threads at once."""

    def __init__(self, hidden: Iterable[bytes]) -> None:
        self._terms = sorted(hidden)
        self._held = b""
        self._longest = max(map(len, self._terms), default=0)
        self._pattern: Any = _compile(self._terms) if self._terms else None
        firsts = sorted({term[:1] for term in self._terms})
        self._first = re.compile(b"[" + b"".join(map(re.escape, firsts)) + b"]") if firsts else None

    def feed(self, chunk: bytes) -> bytes:
        """The masked bytes that are sure by now: all up to a tail that could begin a term."""
        if self._first is None:
            return chunk
        text = self._held + chunk if self._held else chunk
        out, safe = self._mask(text, self._tail(text, 0))
        self._held = text[safe:]
        return out

    def finish(self) -> bytes:
        """The rest: the stream has ended. The masker may be fed anew afterwards."""
        text, self._held = self._held, b""
        return self._mask(text, len(text))[0] if text else b""

    def _mask(self, text: bytes, safe: int) -> tuple[bytes, int]:
        """Masked `text[:end]` and `end`: at least `safe`, further if a term began before it."""
        final = safe == len(text)
        pieces: list[bytes] = []
        done = 0
        for found in self._pattern.finditer(text):
            start, stop = found.span()
            if start >= safe:
                break
            pieces += (text[done:start], MASK)
            done = stop
            if stop > safe and not final:
                safe = self._tail(text, stop)
        if not pieces:
            return (text if final else text[:safe]), safe
        pieces.append(text[done:safe])
        return b"".join(pieces), safe

    def _tail(self, text: bytes, least: int) -> int:
        """Where the longest end of `text` begins that could be the beginning of a term."""
        begin = max(least, text.rfind(b"\n") + 1, len(text) - self._longest + 1)
        if self._first is None:
            return len(text)
        for found in self._first.finditer(text, begin):
            if self._begins_term(text[found.start() :]):
                return found.start()
        return len(text)

    def _begins_term(self, part: bytes) -> bool:
        place = bisect.bisect_left(self._terms, part)
        while place < len(self._terms) and self._terms[place].startswith(part):
            if len(self._terms[place]) > len(part):
                return True
            place += 1
        return False


def _compile(hidden: list[bytes]) -> Any:
    import re2  # a megabyte of library that an agent without work needs not hold

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.longest_match = True
    options.max_mem = 64 * 1024 * 1024
    return re2.compile(b"|".join(re2.escape(term) for term in hidden), options)
