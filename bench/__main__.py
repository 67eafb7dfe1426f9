"""All figures, one after the other: `python -m bench [NAME …]`."""

from __future__ import annotations

import subprocess
import sys

FIGURES = (
    "pipelines", "trigger", "throughput", "lines", "live", "idle", "clone", "cache", "docker_steps",
)  # fmt: skip


def main() -> int:
    """Run each figure as a process of its own; the worst exit code."""
    wanted = sys.argv[1:] or FIGURES
    unknown = sorted(set(wanted) - set(FIGURES))
    if unknown:
        print(f"no such figure: {', '.join(unknown)}; there are {', '.join(FIGURES)}")
        return 2
    commands = ([sys.executable, "-m", f"bench.{name}"] for name in wanted)
    return max(subprocess.run(command).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
