"""Plain words for statuses, events, times and sizes."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline import states

EVENTS = {
    "push": "push",
    "pull_request": "pull request",
    "tag": "tag",
    "promote": "promotion",
    "rollback": "rollback",
    "cron": "cron",
    "custom": "custom",
}


def status(word: str) -> str:
    """A status as people read it."""
    return "waiting" if word == states.WAITING else word


def event(word: str) -> str:
    """An event as people read it."""
    return EVENTS.get(word, word.replace("_", " "))


def duration(span: timedelta) -> str:
    """Such as `850 ms`, `12s`, `3m 05s`, `2h 07m`; nothing negative."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in one rounded word: `just now`, `5 min ago`, `3 h ago`, `2 days ago`."""
    seconds = (now - moment).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 86400:
        return f"{round(seconds / 3600)} h ago"
    days = round(seconds / 86400)
    if days < 30:
        return f"{days} day{'s' if days > 1 else ''} ago"
    return moment.strftime("%-d %b %Y")


def offset(milliseconds: int) -> str:
    """A line's time since its step's start: `0:07`, `1:02:03`."""
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def ref(name: str) -> str:
    """A git ref without its directory: `main`, `v1.0`, `pull/7`."""
    for prefix in ("refs/heads/", "refs/tags/"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    if name.startswith("refs/pull/"):
        return "pull/" + name.split("/")[2]
    return name
