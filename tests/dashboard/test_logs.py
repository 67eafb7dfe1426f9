from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from builds import logs
from dashboard.presenters import logs as present
from tests.dashboard import seed

pytestmark = pytest.mark.django_db
PATH = "/octocat/web/1/1/1"


@pytest.fixture
def step(web: Any) -> Any:
    stage = seed.stage(seed.build(web, 1, "running"), 1, "default", "running")
    return seed.step(stage, 1, "test", "running")


def numbered(count: int, first: int = 1) -> list[str]:
    return [f"line {number}" for number in range(first, first + count)]


def test_it_shows_the_last_thousand_lines_and_a_way_to_earlier_ones(
    as_reader: Client, step: Any
) -> None:
    seed.write_log(step, numbered(2500))

    page = as_reader.get(PATH).content.decode()
    earlier = as_reader.get(f"{PATH}?first=500").content.decode()

    assert 'id="L1501"' in page
    assert 'id="L2500"' in page
    assert 'id="L1500"' not in page
    assert "Show earlier lines (1,500)" in page
    assert 'id="L501"' in earlier
    assert 'id="L1501"' not in earlier
    assert f"{PATH}?first=1500" in earlier


@pytest.mark.parametrize(
    ("first", "start", "earlier", "later"),
    [(None, 1500, 500, None), (0, 0, None, 1000), (700, 700, 0, 1700), (9999, 2500, 1500, None)],
)
def test_a_window_knows_its_neighbours(
    step: Any, first: int | None, start: int, earlier: int | None, later: int | None
) -> None:
    seed.write_log(step, numbered(2500))

    window = present.window(step, first)

    assert (window.first, window.earlier, window.later) == (start, earlier, later)
    assert window.complete


def test_a_log_of_no_lines_says_so(as_reader: Client, step: Any) -> None:
    assert "Nothing printed yet" in as_reader.get(PATH).content.decode()


def test_an_unfinished_line_and_its_rest_are_one_row(step: Any) -> None:
    seed.write_log(step, ["one", "progress .."], end=False, open=True)
    assert present.window(step).open
    seed.write_log(step, [".. done", "three"], end=False)

    window = present.window(step)

    texts = ["".join(span.text for span in line.spans) for line in window.lines]
    assert texts == ["one", "progress .... done", "three"]
    assert [line.number for line in window.lines] == [1, 2, 4]
    assert (window.next, window.open) == (4, False)


def test_it_says_how_many_lines_the_cap_dropped(as_reader: Client, step: Any) -> None:
    seed.write_log(step, ["begin"], end=False)
    seed.write_log(step, ["end"], skip=12_000)

    page = as_reader.get(PATH).content.decode()

    assert "12,000 lines are missing here" in page
    assert 'id="L12002"' in page


def test_it_finds_lines(as_reader: Client, step: Any) -> None:
    seed.write_log(step, [*numbered(1800), "\x1b[31mFA\x1b[1mIL\x1b[0m here", "a <b> fail"])

    found = present.hits(step.pk, "fail")
    page = as_reader.get(PATH, {"q": "line 1700"}).content.decode()

    assert [(hit.number, hit.match) for hit in found] == [(1802, "fail")]
    assert f'href="{PATH}?first=1199#L1700"' in page
    assert "1 line with" in page


def test_a_search_without_hits_says_so(as_reader: Client, step: Any) -> None:
    seed.write_log(step, numbered(3))

    assert "0 lines with “nothing”" in as_reader.get(PATH, {"q": "nothing"}).content.decode()


def test_the_script_gets_lines_as_json(as_reader: Client, step: Any) -> None:
    seed.write_log(step, ["one", "two"], end=False, open=True)
    seed.write_log(step, ["three"], end=False)

    frame = as_reader.get(f"{PATH}/lines?first=1&limit=10").json()

    assert frame["first"] == 1
    assert frame["lines"] == ["two", "three"]
    assert frame["open"] == [0]
    assert len(frame["times"]) == 2


def test_lines_stop_before_a_gap(as_reader: Client, step: Any) -> None:
    seed.write_log(step, ["one"], end=False)
    seed.write_log(step, ["last"], skip=5)

    assert as_reader.get(f"{PATH}/lines?first=0").json()["lines"] == ["one"]
    after = as_reader.get(f"{PATH}/lines?first=1").json()
    assert (after["first"], after["lines"]) == (6, ["last"])


@pytest.mark.parametrize("query", ["first=x", "first=-1", "limit=x", f"first={1 << 80}"])
def test_lines_refuse_nonsense(as_reader: Client, step: Any, query: str) -> None:
    assert as_reader.get(f"{PATH}/lines?{query}").status_code == 400


def test_it_is_downloaded_as_the_step_wrote_it(as_reader: Client, step: Any) -> None:
    seed.write_log(step, ["\x1b[32mok\x1b[0m <b>"], end=False)

    response = as_reader.get(f"{PATH}/log.txt")

    assert b"".join(response.streaming_content) == b"\x1b[32mok\x1b[0m <b>\n"  # type: ignore[attr-defined]
    assert response.headers["Content-Disposition"] == 'attachment; filename="web-1-test.log"'
    assert response.headers["Content-Type"].startswith("text/plain")


def test_a_compacted_log_reads_the_same(as_reader: Client, step: Any) -> None:
    seed.write_log(step, numbered(1200))
    before = as_reader.get(PATH).content

    logs.compact(step.pk)

    assert before.count(b'class="ln') == as_reader.get(PATH).content.count(b'class="ln') == 1000
