from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scripts import posix, powershell, quote, quote_powershell


def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_each_command_is_shown_and_run_in_one_shell() -> None:
    done = run(posix(["cd /", "pwd", "X=1", 'echo "$X"'], netrc=False))
    assert done.stdout == '+ cd /\n+ pwd\n/\n+ X=1\n+ echo "$X"\n1\n'
    assert done.returncode == 0


def test_the_first_failure_ends_it() -> None:
    done = run(posix(["echo a", "(exit 7)", "echo b"], netrc=False))
    assert done.returncode == 7
    assert "b" not in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "true `touch was-here`",
        r"true '\c\n\t\0101 %s %%'",
        "true 'it'\\''s' \"$HOME\" $(true)",
        "true \\\n  second line",
        "cat <<END\nhere\nEND",
        "true é😀",
    ],
)
def test_a_trace_is_the_command_itself_and_is_not_executed(command: str, tmp_path: Path) -> None:
    done = run(f"cd {quote(str(tmp_path))}\n" + posix([": " + command, "exit 0"], netrc=False))
    assert done.stdout.startswith(f"+ : {command}\n")
    shown = run(f"cd {quote(str(tmp_path))}\nprintf '+ %s\\n' {quote(command)}")
    assert shown.stdout == f"+ {command}\n"


def test_backticks_run_once(tmp_path: Path) -> None:
    run(f"cd {quote(str(tmp_path))}\n" + posix(["true `echo x >> out`"], netrc=False))
    assert (tmp_path / "out").read_text() == "x\n"


def test_a_command_that_reads_input_does_not_eat_the_rest() -> None:
    assert run(posix(["cat", "echo end"], netrc=False)).stdout == "+ cat\n+ echo end\nend\n"


def test_netrc_is_written_and_its_variables_are_gone(tmp_path: Path) -> None:
    line = "machine git.example.com login octocat password it's $ecret \\n"
    done = run(
        posix(["cat ~/.netrc", "env | grep -c NETRC || true"], netrc=True),
        HOME=str(tmp_path),
        DRONE_NETRC_FILE=line,
        DRONE_NETRC_PASSWORD="x",
        DRONE_SCRIPT="x",
    )
    assert f"{line}\n" in done.stdout
    assert done.stdout.endswith("\n0\n")
    assert (tmp_path / ".netrc").stat().st_mode & 0o777 == 0o600


def test_no_netrc_without_the_variable(tmp_path: Path) -> None:
    assert run(posix(["true"], netrc=True), HOME=str(tmp_path)).returncode == 0
    assert not (tmp_path / ".netrc").exists()


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_characters="\0\r", codec="utf-8")))
def test_a_quoted_word_is_the_word(text: str) -> None:
    assert run(f"printf %s {quote(text)}").stdout == text


POWERSHELL = """\
$ErrorActionPreference = "Stop"
$Env:DRONE_SCRIPT = $null
$Env:DRONE_NETRC_MACHINE = $null
$Env:DRONE_NETRC_USERNAME = $null
$Env:DRONE_NETRC_PASSWORD = $null
$Env:DRONE_NETRC_FILE = $null

echo "+ go build"
go build
if ($LastExitCode -gt 0) { exit $LastExitCode }

echo "+ echo `$Env:PATH `"a b`""
echo $Env:PATH "a b"
if ($LastExitCode -gt 0) { exit $LastExitCode }
"""


def test_a_windows_step_is_traced_and_stops_at_a_failure() -> None:
    assert powershell(["go build", 'echo $Env:PATH "a b"'], netrc=False) == POWERSHELL


def test_a_windows_step_finds_the_credentials_of_git_in_its_profile() -> None:
    first, *rest = powershell([], netrc=True).splitlines(keepends=True)

    assert first + "".join(rest[3:]) == POWERSHELL[: POWERSHELL.index("\necho")]
    assert rest[:3] == [
        "if ($Env:DRONE_NETRC_FILE) {\n",
        "$Env:DRONE_NETRC_FILE | Out-File -Encoding ascii (Join-Path $Env:USERPROFILE '_netrc')\n",
        "}\n",
    ]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a b", '"a b"'),
        ("$x $(y)", '"`$x `$(y)"'),
        ('say "hi"', '"say `"hi`""'),
        ("tick ` tick", '"tick `` tick"'),
        ("back\\slash 'q'", "\"back\\slash 'q'\""),
        ("one\r\n\ttwo", '"one`r`n`ttwo"'),
        ("\u201csmart\u201d \u201elow", '"`\u201csmart`\u201d `\u201elow"'),
    ],
)
def test_nothing_is_expanded_in_a_windows_trace(text: str, quoted: str) -> None:
    assert quote_powershell(text) == quoted
