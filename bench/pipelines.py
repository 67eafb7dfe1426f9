"""Reading pipeline files: milliseconds per file of the corpus, seconds for all, a huge file's cost.

Per file: decode, convert, parse, lint, plan, and compile every stage that a push to main chooses.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import show
from pipeline.compile import compile_stage
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts
from pipeline.plan import plan
from pipeline.verdict import judge
from tests import corpus

REPO = RepoFacts("octocat/hello-world", trusted=True)
BUILD = BuildFacts(target="main", source="main")
STEPS = 10_000


def work(data: bytes, path: str) -> None:
    """All that happens to a file between a push and its stages' claims."""
    judged = judge(data, path)
    judged.lint(trusted=True)
    if judged.file is None:
        return
    for stage in plan(judged.file, REPO, BUILD).stages:
        facts = Facts(REPO, BUILD, StageFacts(stage.number, stage.name, axis=stage.axis))
        try:
            compile_stage(judged.text, file=path, facts=facts, environ={}, parsed=judged.file)
        except PipelineError:
            continue


def timed(data: bytes, path: str) -> float:
    begun = time.perf_counter()
    work(data, path)
    return time.perf_counter() - begun


def huge() -> bytes:
    steps = "".join(
        f"- name: s{i}\n  image: alpine\n  commands: [echo {i}]\n" for i in range(STEPS)
    )
    return f"kind: pipeline\nname: huge\nsteps:\n{steps}".encode()


def main() -> None:
    folder = corpus.folder("pipelines")
    files: list[Path] = sorted(folder.glob("*/*.yml")) if folder else []
    times = [timed(path.read_bytes(), path.name) for path in files]
    begun = time.perf_counter()
    lint = [sys.executable, "-m", "ciserver.cli", "lint", *map(str, files)]
    subprocess.run(lint, stdout=subprocess.DEVNULL, check=False)
    all_s = time.perf_counter() - begun
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge_s = timed(huge(), "huge.yml")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    show(
        "pipelines",
        files=len(files),
        median_ms=round(statistics.median(times) * 1000, 2) if times else None,
        worst_ms=round(max(times) * 1000, 2) if times else None,
        lint_all_s=round(all_s, 2),
        huge_steps=STEPS,
        huge_s=round(huge_s, 2),
        huge_mb=round((peak - before) / 1024, 1),
        peak_mb=round(peak / 1024, 1),
    )


if __name__ == "__main__":
    main()
