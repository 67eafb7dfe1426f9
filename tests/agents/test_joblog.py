from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agents.agent import Agent
from agents.cache.commands import Answer
from agents.cache.place import Place
from agents.joblog import JobLog
from agents.options import Options
from pipeline import states
from tests.agents.conftest import stage, step
from tests.agents.double import Double


class Shelf:
    """Keeps what is pushed, or refuses it."""

    def __init__(self, code: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self._code = code

    def run(self, words: Sequence[str], place: Place, stopped: Callable[[], bool]) -> Answer:
        _, path, _, name = words
        answer = Answer()
        answer.code = self._code
        with tarfile.open(fileobj=BytesIO(b"".join(place.pack(path)))) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            assert file is not None
            self.files[name] = file.read()
        return answer


def kept(folder: Path, **given: Any) -> JobLog:
    log = JobLog(folder, Options(server="http://ci", token="x", **given))
    second, first = log.copy(2, "test"), log.copy(1, "clone")
    log.copy(3, "silent")
    second(b"ok ")
    first(b"cloned\n")
    second(b"done\n")
    return log


def upload(log: JobLog, *, trimmed: bool = False, code: int = 0) -> dict[str, bytes]:
    shelf = Shelf(code)
    log.upload(shelf, 4, trimmed=trimmed, stopped=lambda: False)
    return shelf.files


WHOLE = b"=== clone ===\ncloned\n\n=== test ===\nok done\n\n=== silent ===\n"


def test_it_uploads_all_steps_in_their_order(tmp_path: Path) -> None:
    assert upload(kept(tmp_path, upload_job_logs="always")) == {"agent/4/job_logs.txt": WHOLE}


def test_it_uploads_what_was_trimmed(tmp_path: Path) -> None:
    log = kept(tmp_path, upload_job_logs="when-trimmed")

    assert upload(log) == {}
    assert upload(log, trimmed=True) == {"agent/4/job_logs.txt": WHOLE}


def test_it_compresses_what_is_large(tmp_path: Path) -> None:
    [(name, data)] = upload(
        kept(tmp_path, upload_job_logs="always", logs_compression_size=5)
    ).items()

    assert name == "agent/4/job_logs.txt.gz"
    assert gzip.decompress(data) == WHOLE


@pytest.mark.parametrize("code", [0, 1])
def test_it_never_fails_a_build(tmp_path: Path, code: int) -> None:
    log = JobLog(
        tmp_path / "gone", Options(server="http://ci", token="x", upload_job_logs="always")
    )
    write = log.copy(1, "one")
    write(b"text")
    write(b"more")

    upload(log, code=code)


def test_an_agent_uploads_the_log_of_a_stage_masked(
    make_agent: Callable[..., Agent], double: Double
) -> None:
    agent = make_agent(upload_job_logs="always")
    agent.start()
    double.add(stage(step("one", "echo the s3cret"), step("two", "exit 3"), masks=("s3cret",)))

    agent.serve()

    assert double.only_lease().last.status == states.FAILURE
    data, _ = double.artifacts["agent/1/job_logs.txt"]
    assert b"=== one ===\n+ echo the ******\nthe ******\n" in data
    assert b"=== two ===\n+ exit 3\n" in data


def test_an_agent_keeps_an_untrimmed_log_to_itself(
    make_agent: Callable[..., Agent], double: Double
) -> None:
    never = make_agent()
    never.start()
    double.add(stage(step("one", "seq 1000000")))
    never.serve()
    assert double.artifacts == {}
    never.finish()

    agent = make_agent(upload_job_logs="when-trimmed", max_log_size=64 * 1024)
    agent.start()
    double.add(stage(step("one", "echo short")))
    agent.serve()
    assert double.artifacts == {}

    double.add(stage(step("one", "seq 1000000")))
    agent.serve()
    data, _ = double.artifacts["agent/1/job_logs.txt"]
    assert data.count(b"\n") > 1000000
