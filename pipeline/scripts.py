"""The script of a step with commands; shared by the compiler's tests and the agents.

Source: drone-runner-docker's script (reference: pipeline format, section 4), in the safe form it
asks for: a trace line is printed, never executed, and keeps backslashes and backticks; the script
is a file or an argument of `sh`, so that no command can eat the rest of it from its input. Windows
steps read theirs from the variable DRONE_SCRIPT, as in Drone.

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
_POWERSHELL_NETRC = """\
if ($Env:DRONE_NETRC_FILE) {
$Env:DRONE_NETRC_FILE | Out-File -Encoding ascii (Join-Path $Env:USERPROFILE '_netrc')
}
"""
_POWERSHELL_UNSET = "".join(
    f"$Env:{name} = $null\n" for name in _UNSET.split() if name.startswith("DRONE_")
)
#: What may not stand as it is between double quotes of PowerShell; typographic ones count as such.
_POWERSHELL_ESCAPES = str.maketrans(
    {
        **{char: "`" + char for char in '`$"\u201c\u201d\u201e'},
        "\n": "`n",
        "\r": "`r",
        "\t": "`t",
    }
)


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


def powershell(commands: Sequence[str], *, netrc: bool) -> str:
    """A PowerShell script that runs `commands` and stops at the first that fails.

    A command fails by an error of PowerShell or by a program's exit code above 0, which becomes the
    script's. `netrc` writes the variable DRONE_NETRC_FILE to _netrc in USERPROFILE.
    """
    parts = ['$ErrorActionPreference = "Stop"\n', _POWERSHELL_NETRC if netrc else ""]
    parts.append(_POWERSHELL_UNSET)
    for command in commands:
        trace = quote_powershell("+ " + command)
        parts.append(f"\necho {trace}\n{command}\n")
        parts.append("if ($LastExitCode -gt 0) { exit $LastExitCode }\n")
    return "".join(parts).replace("\0", "")


def quote_powershell(text: str) -> str:
    """`text` as one double-quoted word of PowerShell, of which nothing is expanded."""
    return '"' + text.translate(_POWERSHELL_ESCAPES) + '"'
