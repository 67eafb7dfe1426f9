"""Why git could not reach a remote, for a person who can mend it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pipeline.remotes import Trouble, trouble

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
_MEANINGS: Final[Mapping[Trouble, str]] = {
    Trouble.OTHER_HOST_KEY: _OTHER_KEY,
    Trouble.HOST_KEY: _HOST_KEY,
    Trouble.OPEN_KEY: _OPEN_KEY,
    Trouble.KEY: _KEY,
    Trouble.NO_SSH: _NO_SSH,
}


def reason(said: str, *, has_login: bool) -> str:
    """One clause without a full stop; `has_login`: we sent the host a login that we have for it."""
    found = trouble(said)
    if found is Trouble.LOGIN:
        return _REFUSED if has_login else _LOGIN
    if found is not None:
        return _MEANINGS[found]
    lines = said.strip().splitlines()
    weighty = [line for line in lines if line.startswith(("fatal:", "ssh:", "error:"))] or lines
    if not weighty:
        return "git gave no reason"
    return re.sub(r"^(fatal|error): ", "", weighty[0]).strip()
