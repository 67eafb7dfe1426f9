"""Log batches as they travel and are stored: one zstd frame of a JSON header line and the lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from agents.logs.spool import Record, Spool

#: Lines per batch, before compression; the server takes 4 MiB with the header.
BATCH_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines from `start` up to `end`, packed."""

    start: int
    end: int
    data: bytes


class Packer:
    """Makes batches of what a spool holds. Not for several threads at once."""

    def __init__(self) -> None:
        import zstandard  # not needed before there is a line

        self._compressor = zstandard.ZstdCompressor(level=1)

    def pack(self, spool: Spool, position: int, limit: int = BATCH_BYTES) -> Batch | None:
        """The next batch from `position` on, or None where nothing may be shipped."""
        records, body = spool.read(position, limit)
        if not records:
            return None
        header: dict[str, Any] = {"t": _times(records)}
        if records[-1].open:
            header["open"] = True
        if records[0].position > position:
            header["skip"] = records[0].position - position
        frame = json.dumps(header, separators=(",", ":")).encode() + b"\n" + body
        return Batch(position, records[-1].end, self._compressor.compress(frame))


def _times(records: list[Record]) -> list[list[int]]:
    """Pairs of line index and milliseconds, one where the time changes."""
    times: list[list[int]] = []
    for record in records:
        if not times or times[-1][1] != record.ms:
            times.append([record.position - records[0].position, record.ms])
    return times
