"""The script of a step with commands; shared by the compiler's tests and the agents.

Source: drone-runner-docker's script (reference: pipeline format, section 4), in the safe form it
asks for: a trace line is printed, never executed, and keeps backslashes and backticks; the script
is a file or an argument of `sh`, so that no command can eat the rest of it from its input.

What the agent adds when a step starts, over `StageSpec.environment` and `StepSpec.environment`:
DRONE_STEP_NAME, DRONE_STEP_NUMBER, DRONE_STAGE_STATUS and DRONE_BUILD_STATUS (`failure` once the
stage is failing, else as compiled), DRONE_FAILED_STEPS (names, comma-separated, only when failing).
Variables that are empty after all that are not set, except secrets.
"""

from __future__ import annotations

from collections.abc import Sequence

_NETRC = """\
if [ -n "${DRONE_NETRC_FILE:-}" ]; then
(umask 077; printf '%s\\n' "$DRONE_NETRC_FILE" > "${HOME:-/root}/.netrc")
chmod 600 "${HOME:-/root}/.netrc"
fi
"""
_UNSET = """\
unset DRONE_SCRIPT DRONE_NETRC_MACHINE DRONE_NETRC_USERNAME DRONE_NETRC_PASSWORD DRONE_NETRC_FILE
"""


def posix(commands: Sequence[str], *, netrc: bool) -> str:
    """A POSIX shell script that runs `commands` in one shell and stops at the first that fails.

    Each is shown first as `+ command`. `netrc` writes the variable DRONE_NETRC_FILE to ~/.netrc,
    readable by its owner only.
    """
    parts = [_NETRC if netrc else "", _UNSET, "set -e\n"]
    for command in commands:
        parts.append(f"\nprintf '+ %s\\n' {quote(command)}\n{command}\n")
    return "".join(parts).replace("\0", "")


def quote(text: str) -> str:
    """`text` as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"
