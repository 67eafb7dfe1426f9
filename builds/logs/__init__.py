"""Step logs: lines by position, taken in batches, read by anyone who says how far he has got.

A line is acknowledged when it is durable; what is stored never changes but in form. The formats are
described in docs/logs.md.
"""

from builds.logs.batches import BatchError, Chunk
from builds.logs.compaction import compact, compact_due
from builds.logs.intake import append, ended, finish, give_up, next_position, position, take
from builds.logs.reading import lines, read, search, text
from builds.logs.removal import delete, delete_all, sweep
from builds.logs.store import StoreFault
from builds.logs.watch import pace_ms, viewers

__all__ = [
    "BatchError",
    "Chunk",
    "StoreFault",
    "append",
    "compact",
    "compact_due",
    "delete",
    "delete_all",
    "ended",
    "finish",
    "give_up",
    "lines",
    "next_position",
    "pace_ms",
    "position",
    "read",
    "search",
    "sweep",
    "take",
    "text",
    "viewers",
]
