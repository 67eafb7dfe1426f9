"""The command `ci-agent`: start an agent, or say what is wrong with its configuration."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from agents import option_text
from agents.check import Finding, check
from agents.options import OptionError, child_environ, load

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_USAGE: Final = """\
Usage: ci-agent COMMAND [OPTIONS]

Commands:
  start    run an agent until it is told to leave (also: agent)
  run      run an agent that takes one stage and leaves
  check    verify server, token, clock, Redis, Docker and disk; --offline looks at the
           configuration only, --json prints data
  options  print the page that documents every option
  version  print the version

Exit codes: 0 the agent left as told, 1 it could not go on, 2 the configuration is wrong.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. `start` and `run` do not return."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words.pop(0) if words else "--help"
    if {"--help", "-h"} & {name, *words} or name == "help":
        return _print(_USAGE + "\nOptions of start, run and check:\n" + option_text.help_text())
    command = _COMMANDS.get(name)
    if command is None:
        sys.stderr.write(f"ci-agent: there is no command {name}; see ci-agent --help\n")
        return EXIT_USAGE
    try:
        return command(words, os.environ)
    except OptionError as fault:
        sys.stderr.write(f"ci-agent: {fault}\n")
        return EXIT_USAGE


def _start(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Become the Celery worker that the agent is, told the options by its environment."""
    options = load(argv, environ)
    command = [sys.executable, "-m", "celery", "-A", "agents", "worker"]
    _become(command, child_environ(options, environ))


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    return _start([*argv, "--disconnect-after-job"], environ)


def _become(command: list[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.execve(command[0], command, environ)  # noqa: S606 - the program is our own


def _check(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    words = [word for word in argv if word not in ("--offline", "--json")]
    options = load(words, environ)
    findings = list(check(options, version=version(), offline="--offline" in argv))
    failed = any(finding.status == "failed" for finding in findings)
    if "--json" in argv:
        rows = [{"name": one.name, "status": one.status, "text": one.text} for one in findings]
        _print(json.dumps({"ok": not failed, "checks": rows}, indent=2) + "\n")
    else:
        _print(_table(findings))
    return EXIT_FAILED if failed else 0


def _table(findings: Sequence[Finding]) -> str:
    width = max(len(one.name) for one in findings)
    return "".join(f"{one.name:<{width}}  {one.status:<7}  {one.text}\n" for one in findings)


def _options(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    return _print(option_text.page())


def _version(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    return _print(f"ci-agent {version()}\n")


def version() -> str:
    """The version of the agent."""
    from agents.agent import VERSION

    return VERSION


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


_COMMANDS: Final[Mapping[str, Callable[[Sequence[str], Mapping[str, str]], int]]] = {
    "start": _start,
    "agent": _start,
    "run": _run,
    "check": _check,
    "options": _options,
    "version": _version,
}

if __name__ == "__main__":
    sys.exit(main())
