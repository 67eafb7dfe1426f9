"""One process runs the loops at a time: the holder of a row, until the moment the row names."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from builds.models import Leader

NAME: Final = "loops"
TERM: Final = timedelta(seconds=30)


def acquire(holder: str, *, name: str = NAME, term: timedelta = TERM) -> bool:
    """Become the leader, or stay it, for another term; whether that worked.

    All by the database's clock. To be called again well before the term is over.
    """
    mine = Leader.objects.filter(Q(holder=holder) | Q(until__lt=Now()), name=name)
    if mine.update(holder=holder, until=Now() + term):
        return True
    try:
        with transaction.atomic():
            if Leader.objects.filter(name=name).exists():
                return False
            Leader.objects.bulk_create([Leader(name=name, holder=holder, until=Now() + term)])
    except IntegrityError:
        return False
    return True


def resign(holder: str, *, name: str = NAME) -> None:
    """Let another process take over at once."""
    Leader.objects.filter(name=name, holder=holder).delete()
