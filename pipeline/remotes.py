"""How git is made to reach remotes, and what its words mean when it does not: for servers, which
read repositories, and for agents, which clone them."""

from __future__ import annotations

import re
import shlex
from enum import Enum
from typing import Final

_SSH: Final = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")


def ssh_command(key: str, known_hosts: str) -> str:
    """GIT_SSH_COMMAND: ssh that asks nobody; with empty paths it finds keys and hosts as ever."""
    words = [*_SSH]
    if key:
        words += ["-i", key, "-o", "IdentitiesOnly=yes"]
    if known_hosts:
        words += ["-o", f'UserKnownHostsFile="{known_hosts}"', "-o", "StrictHostKeyChecking=yes"]
        words += ["-o", "GlobalKnownHostsFile=/dev/null"]
    return shlex.join(words)


class Trouble(Enum):
    """What somebody can do something about, by what git or ssh says then."""

    OTHER_HOST_KEY = r"REMOTE HOST IDENTIFICATION HAS CHANGED"
    HOST_KEY = r"Host key verification failed"
    OPEN_KEY = r"UNPROTECTED PRIVATE KEY FILE"
    KEY = r"Permission denied \([a-z,-]+\)"
    NO_SSH = r"cannot run ssh: No such file|ssh: not found"
    LOGIN = r"could not read (Username|Password) for|Authentication failed for"


def trouble(said: str) -> Trouble | None:
    """What is meant; the first that is found counts."""
    return next((one for one in Trouble if re.search(one.value, said)), None)
