"""What is read of JUnit reports, and what is refused."""

from __future__ import annotations

import pytest

from builds import junit
from builds.junit import BadReport, Case, read

PYTEST = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.1">
<testcase classname="tests.test_a" name="test_one" time="0.001" />
<testcase classname="tests.test_a" name="test_two" time="1.5"><failure message="assert 1 == 2">
def test_two():
&gt;   assert 1 == 2</failure></testcase>
<testcase classname="tests.test_a" name="test_three" time="0"><skipped type="pytest.skip"
 message="not today">here</skipped></testcase>
</testsuite></testsuites>"""


def test_it_reads_what_pytest_writes() -> None:
    assert read(PYTEST) == [
        Case("tests.test_a", "test_one", "passed", 0.001),
        Case(
            "tests.test_a",
            "test_two",
            "failed",
            1.5,
            "assert 1 == 2\ndef test_two():\n>   assert 1 == 2",
        ),
        Case("tests.test_a", "test_three", "skipped", 0.0, "not today\nhere"),
    ]


def test_a_case_without_a_class_belongs_to_its_suite() -> None:
    nested = b"""<testsuites><testsuite name="outer"><testsuite name="inner">
      <testcase name="a"/></testsuite><testcase name="b"/></testsuite></testsuites>"""

    assert [(case.suite, case.name) for case in read(nested)] == [("inner", "a"), ("outer", "b")]


def test_errors_are_failures_and_reruns_are_not() -> None:
    report = b"""<testsuite name="s">
      <testcase name="a"><error message="x"/><failure message="y"/></testcase>
      <testcase name="b"><flakyFailure message="first"/><system-out>text</system-out></testcase>
      <testcase name="c"><properties><property name="p"/></properties></testcase>
    </testsuite>"""

    assert [(case.name, case.result, case.message) for case in read(report)] == [
        ("a", "failed", "x"),
        ("b", "passed", ""),
        ("c", "passed", ""),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1,234.5", 1234.5), ("", 0.0), ("soon", 0.0), ("nan", 0.0), ("inf", 0.0), ("-1", 0.0)],
)
def test_odd_times_are_no_reason_to_fail(text: str, seconds: float) -> None:
    report = f'<testsuite><testcase name="a" time="{text}"/></testsuite>'.encode()

    assert read(report)[0].duration_s == seconds


def test_long_texts_are_cut() -> None:
    text = b"x" * 100_000
    report = b'<testsuite><testcase name="%b"><failure message="%b">%b</failure></testcase>'

    (case,) = read(report % (text, text, text) + b"</testsuite>")

    assert (len(case.name), len(case.message)) == (junit.MAX_NAME_CHARS, junit.MAX_MESSAGE_CHARS)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE testsuite [
<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
]><testsuite><testcase name="&c;"/></testsuite>"""
FETCH = b"""<!DOCTYPE testsuite [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<testsuite><testcase name="a"><failure>&a;</failure></testcase></testsuite>"""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not XML"),
        (b"<testsuite>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><testsuite/>', "encoding"),
        (b"<html><body/></html>", "not a JUnit report: it begins with <html>"),
        (b"<testsuite>" * 65 + b"</testsuite>" * 65, "nested"),
        (BOMB, "entities"),
        (FETCH, "entities"),
    ],
)
def test_it_refuses(data: bytes, reason: str) -> None:
    with pytest.raises(BadReport, match=reason):
        read(data)


def test_it_refuses_more_tests_than_anybody_has() -> None:
    cases = b'<testcase name="a"/>' * (junit.MAX_CASES + 1)

    with pytest.raises(BadReport, match="more than"):
        read(b"<testsuite>%b</testsuite>" % cases)
