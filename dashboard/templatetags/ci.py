"""What templates of the dashboard share: status icons, times, durations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.presenters import words

register = template.Library()


@register.inclusion_tag("dashboard/_status.html")
def status(word: str, size: str = "", show: bool = False) -> dict[str, Any]:
    """A status' icon; its word is always there, shown or for screen readers only."""
    return {
        "status": word or "none",
        "word": words.status(word or "no builds"),
        "size": size,
        "show": show,
    }


@register.simple_tag
def moment(value: datetime | None) -> SafeString | str:
    """How long ago as a `time` element that the page keeps fresh; nothing for None."""
    if value is None:
        return ""
    return format_html(
        '<time datetime="{}" title="{} UTC" data-ago>{}</time>',
        value.isoformat(timespec="seconds"),
        value.strftime("%Y-%m-%d %H:%M:%S"),
        words.ago(value, timezone.now()),
    )


@register.simple_tag
def elapsed(started: datetime | None, stopped: datetime | None) -> SafeString | str:
    """A duration; while it is still running the page counts on. Nothing before the start."""
    if started is None:
        return ""
    if stopped is not None:
        return format_html('<span class="duration">{}</span>', words.duration(stopped - started))
    return format_html(
        '<span class="duration" data-since="{}">{}</span>',
        started.isoformat(),
        words.duration(timezone.now() - started),
    )


@register.filter
def event(word: str) -> str:
    """An event in plain words."""
    return words.event(word)


@register.filter
def plain(word: str) -> str:
    """A status in plain words."""
    return words.status(word)


@register.filter
def count(number: int) -> str:
    """A number with thousands set apart: `12,000`."""
    return f"{number:,}"
