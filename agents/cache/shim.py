"""The commands `cache` and `artifact` as steps have them: a few lines of shell that ask the agent.

It needs no program but `sh` and `sleep`. What is asked goes into a file of the step's box, the
answer comes as another; a number that the agent counts up there says that the agent lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from agents.cache.settings import STEP_VARIABLES

#: The step gives up when the agent has not counted for so long.
PATIENCE_S: Final = 60
CACHE: Final = "cache"
ARTIFACT: Final = "artifact"
_MODE: Final = 0o755

_PROGRAM: Final = Template(
    """\
#!/bin/sh
# Asks the agent that runs this step to keep or bring files.
box='$box'
line='
'
failed=1
case "$$1" in has_key|is_not_empty) failed=2 ;; esac
case "$$*" in *"$$line"*) echo '$tool: an argument has several lines' >&2; exit $$failed ;; esac

count=0
while ask="$$box/$$$$.$$count"; ! (set -C; : > "$$ask.ask") 2>/dev/null; do
  count=$$((count + 1))
  if [ $$count -gt 1000 ]; then echo '$tool: the agent cannot be asked' >&2; exit $$failed; fi
done
{
  echo 'tool $tool'
  printf 'cwd %s\\n' "$$PWD"
  for name in $names; do
    eval "value=\\$${$$name-}"
    case "$$value" in ''|*"$$line"*) ;; *) printf 'env %s=%s\\n' "$$name" "$$value" ;; esac
  done
  for word in "$$@"; do printf 'arg %s\\n' "$$word"; done
  echo end
} >> "$$ask.ask"

beat= waited=0
while [ ! -f "$$ask.done" ]; do
  waited=$$((waited + 1))
  sleep 0.05 2>/dev/null || { sleep 1; waited=$$((waited + 19)); }
  { read -r now < "$$box/beat"; } 2>/dev/null
  if [ "$$now" != "$$beat" ]; then beat=$$now waited=0; fi
  if [ $$waited -gt $ticks ]; then echo '$tool: the agent is gone' >&2; exit $$failed; fi
done

{
  read -r code
  while IFS= read -r text; do
    case "$$text" in
      e*) printf '%s\\n' "$${text#?}" >&2 ;;
      m*) printf '%s\\n' "$${text#?}" >> /tmp/toolbox_metrics ;;
      *) printf '%s\\n' "$${text#?}" ;;
    esac
  done
} < "$$ask.answer"
exit "$${code:-$$failed}"
"""
)
_CHECKSUM: Final = """\
#!/bin/sh
exec cache checksum "$@"
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What a step asks: of which tool, where, with which variables, which words."""

    cwd: str
    given: Mapping[str, str]
    words: tuple[str, ...]
    tool: str = CACHE


def programs(box: str, patience_s: float = PATIENCE_S) -> dict[str, str]:
    """The programs by name, for a step that has its box at a path."""
    ticks = str(int(patience_s * 20))
    names = {CACHE: " ".join(STEP_VARIABLES), ARTIFACT: ""}
    found = {
        tool: _PROGRAM.substitute(tool=tool, box=box, names=names[tool], ticks=ticks)
        for tool in (CACHE, ARTIFACT)
    }
    return {**found, "checksum": _CHECKSUM}


def install(folder: Path, box: str, patience_s: float = PATIENCE_S) -> None:
    """Write the programs into a directory of this host."""
    folder.mkdir(mode=_MODE, parents=True, exist_ok=True)
    folder.chmod(_MODE)
    for name, text in programs(box, patience_s).items():
        path = folder / name
        path.write_text(text)
        path.chmod(_MODE)


def parse(text: str) -> Request | None:
    """A request as the program wrote it; None while it is not complete, or is none."""
    lines = text.split("\n")
    if lines[-2:] != ["end", ""]:
        return None
    cwd, tool, given, words = "/", CACHE, {}, []
    for line in lines[:-2]:
        kind, _, rest = line.partition(" ")
        if kind == "cwd":
            cwd = rest
        elif kind == "tool":
            tool = rest
        elif kind == "env":
            name, _, value = rest.partition("=")
            given[name] = value
        elif kind == "arg":
            words.append(rest)
    return Request(cwd, given, tuple(words), tool)


def answer(code: int, out: list[str], err: list[str], metrics: list[str]) -> str:
    """An answer as the program reads it."""
    lines = [str(code)]
    for mark, texts in (("o", out), ("e", err), ("m", metrics)):
        lines += [f"{mark}{line}" for text in texts for line in text.split("\n")]
    return "\n".join(lines) + "\n"
