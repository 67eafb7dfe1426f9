"""Why git could not reach a remote, for a person who can mend it; and how git calls ssh."""

from __future__ import annotations

import re
import shlex
from typing import Final

_HOST_KEY: Final = (
    "ssh does not know the host's key; put it into known_hosts of the server's user, or into the "
    "file of CISERVER_GIT_SSH_KNOWN_HOSTS"
)
_OTHER_KEY: Final = (
    "the host's key is not the one that known_hosts has for it; if the host has a new key, "
    "replace the old one there"
)
_KEY: Final = (
    "the host refuses the server's ssh key; give it the public half, or name another key with "
    "CISERVER_GIT_SSH_KEY"
)
_OPEN_KEY: Final = "ssh uses no key that others can read: chmod 600 the file of the key"
_LOGIN: Final = "it wants a login, which CISERVER_GIT_CREDENTIALS or ~/.netrc can give"
_REFUSED: Final = "it refuses the login that CISERVER_GIT_CREDENTIALS has for it"
_NO_SSH: Final = "the program ssh is not installed on the server"
#: What git or ssh says, and what it means; the first that is found counts.
_MEANINGS: Final = (
    (re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED"), _OTHER_KEY),
    (re.compile(r"Host key verification failed"), _HOST_KEY),
    (re.compile(r"UNPROTECTED PRIVATE KEY FILE"), _OPEN_KEY),
    (re.compile(r"Permission denied \([a-z,-]+\)"), _KEY),
    (re.compile(r"cannot run ssh: No such file|ssh: not found"), _NO_SSH),
)
_ASKED: Final = re.compile(r"could not read (Username|Password) for|Authentication failed for")


def reason(said: str, *, has_login: bool) -> str:
    """One clause without a full stop; `has_login`: we sent the host a login that we have for it."""
    for pattern, meaning in _MEANINGS:
        if pattern.search(said):
            return meaning
    if _ASKED.search(said):
        return _REFUSED if has_login else _LOGIN
    lines = said.strip().splitlines()
    weighty = [line for line in lines if line.startswith(("fatal:", "ssh:", "error:"))] or lines
    if not weighty:
        return "git gave no reason"
    return re.sub(r"^(fatal|error): ", "", weighty[0]).strip()


def ssh_command(key: str, known_hosts: str) -> str:
    """GIT_SSH_COMMAND: ssh that asks nobody; with empty paths it finds keys and hosts as ever."""
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
    if key:
        words += ["-i", key, "-o", "IdentitiesOnly=yes"]
    if known_hosts:
        words += ["-o", f'UserKnownHostsFile="{known_hosts}"', "-o", "StrictHostKeyChecking=yes"]
        words += ["-o", "GlobalKnownHostsFile=/dev/null"]
    return shlex.join(words)
