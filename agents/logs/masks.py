"""Hide secrets in a stream of bytes, whatever way it is cut into chunks.

Terms never contain a line feed, so nothing is held back across the end of a line. What could be the
beginning of a term at the end of a chunk is withheld until more bytes come or the stream ends.
"""

from __future__ import annotations

import base64
import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

MASK: Final = b"******"
#: Parts of a secret shorter than this are not masked. Source: Drone (reference section 7).
_SHORTEST: Final = 2
#: How many bytes the lines of base64 have: those of MIME and `base64`, and those of PEM files.
_WRAPPED: Final = (57, 48)
#: Encoded forms of very short values would hide half of every log.
_SHORTEST_ENCODED: Final = 6
#: From so many masked places in a chunk on, replacing is tried instead of searching.
_MANY: Final = 32
#: More different terms than these in one chunk are searched for, not replaced.
_FEW: Final = 12


def terms(values: Iterable[str]) -> list[bytes]:
    """The byte strings to hide for these secrets, longest first.

    Each line of a value, trimmed, and the value as a whole and its lines in base64 (wherever it may
    begin in the encoded text; in lines, if it begins there), in URLs, in JSON strings and in XML.
    """
    found: set[bytes] = set()
    for value in values:
        parts = {part.strip() for part in (*value.split("\n"), *value.splitlines())}
        parts = {part for part in parts if len(part.encode()) >= _SHORTEST}
        found.update(part.encode() for part in parts)
        for part in parts | {value, value.strip()}:
            found.update(_encoded(part))
        for whole in (value, value.strip()):
            found.update(_in_lines(whole.encode()))
    return sorted(found, key=lambda term: (-len(term), term))


def _encoded(text: str) -> set[bytes]:
    raw = text.encode()
    if len(raw) < _SHORTEST_ENCODED:
        return set()
    forms = {quote(text, safe="").encode(), quote_plus(text).encode(), quote(text).encode()}
    forms.add(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode())
    forms |= {escape(text).encode(), escape(text, {'"': "&quot;", "'": "&apos;"}).encode()}
    for offset in range(3):
        forms.update(_base64(raw, offset))
    return {form for form in forms if b"\n" not in form and len(form) >= _SHORTEST_ENCODED}


def _in_lines(raw: bytes) -> Iterator[bytes]:
    """The lines of a long value in base64."""
    for width in _WRAPPED:
        if len(raw) > width:
            for start in range(0, len(raw), width):
                line = _base64(raw[start : start + width], 0)[0]
                if len(line) >= _SHORTEST_ENCODED:
                    yield line


def _base64(raw: bytes, offset: int) -> tuple[bytes, bytes]:
    """What base64 makes of `raw` at an offset, without the characters its neighbours change."""
    padded = bytes(offset) + raw
    first = (offset * 8 + 5) // 6
    last = len(padded) * 8 // 6
    plain = base64.b64encode(padded)[first:last]
    return plain, plain.replace(b"+", b"-").replace(b"/", b"_")


def _is_apart(hidden: set[bytes]) -> bool:
    """Whether no two different terms can overlap in a text, nor a mask become part of one."""
    if len(hidden) > _FEW or any(b"*" in term for term in hidden):
        return False
    return not any(
        one is not other and (one in other or _touch(one, other))
        for one in hidden
        for other in hidden
    )


def _touch(one: bytes, other: bytes) -> bool:
    """Whether an end of one term is a beginning of the other."""
    return any(other.startswith(one[-size:]) for size in range(1, min(len(one), len(other))))


def hide(text: str, hidden: Iterable[bytes]) -> str:
    """A short text with its secrets masked."""
    if not text:
        return text
    masker = Masker(hidden)
    return (masker.feed(text.encode()) + masker.finish()).decode(errors="replace")


def hide_in(files: Mapping[str, bytes], hidden: Iterable[bytes]) -> dict[str, bytes]:
    """Files with their secrets masked. Short ones stay: they could be part of a file's grammar."""
    masker = Masker(term for term in hidden if len(term) >= _SHORTEST_ENCODED)
    return {name: masker.feed(data) + masker.finish() for name, data in files.items()}


class Masker:
    """Masks one stream. Not for several threads at once."""

    def __init__(self, hidden: Iterable[bytes]) -> None:
        self._terms = sorted(hidden)
        self._held = b""
        self._others: dict[frozenset[bytes], Any] = {}
        self._longest = max(map(len, self._terms), default=0)
        self._pattern: Any = _compile(self._terms) if self._terms else None
        firsts = sorted({term[:1] for term in self._terms})
        self._first = re.compile(b"[" + b"".join(map(re.escape, firsts)) + b"]") if firsts else None

    def feed(self, chunk: bytes) -> bytes:
        """The masked bytes that are sure by now: all up to a tail that could begin a term."""
        if self._first is None:
            return chunk
        text = self._held + chunk if self._held else chunk
        lines = text.rfind(b"\n") + 1
        whole = self._mask_lines(text[:lines]) if lines else b""
        text = text[lines:]
        out, safe = self._mask(text, self._tail(text, 0))
        self._held = text[safe:]
        return whole + out

    def finish(self) -> bytes:
        """The rest: the stream has ended. The masker may be fed anew afterwards."""
        text, self._held = self._held, b""
        return self._mask(text, len(text))[0] if text else b""

    def _mask_lines(self, text: bytes) -> bytes:
        """Masked whole lines: no term can reach over their end."""
        pieces: list[bytes] = []
        seen: set[bytes] = set()
        done = 0
        for count, found in enumerate(self._pattern.finditer(text), 1):
            start, stop = found.span()
            seen.add(text[start:stop])
            if count == _MANY:
                rest = self._replace(text[start:], seen)
                if rest is not None:
                    return b"".join((*pieces, text[done:start], rest))
            pieces += (text[done:start], MASK)
            done = stop
        return b"".join((*pieces, text[done:])) if pieces else text

    def _replace(self, text: bytes, seen: set[bytes]) -> bytes | None:
        """The same by plain replacement, a hundred times faster where many terms stand.

        It gives the same only if no two of the terms in the text can overlap; None where that, or
        which terms are in the text, is not sure.
        """
        for _ in range(_FEW):
            if not _is_apart(seen):
                return None
            another = self._but(frozenset(seen)).search(text)
            if another is None:
                for term in seen:
                    text = text.replace(term, MASK)
                return text
            seen = seen | {another.group()}
        return None

    def _but(self, seen: frozenset[bytes]) -> Any:
        """A pattern of all terms but some. The empty text before nothing matches nothing."""
        if seen not in self._others:
            rest = [term for term in self._terms if term not in seen]
            self._others[seen] = _compile(rest or [b"\n" * 2 + b"\0"])
        return self._others[seen]

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
