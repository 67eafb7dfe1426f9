"""The dashboard in a real browser, before a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.dashboard.site import Browser, Site, browser, site

pytestmark = [
    pytest.mark.service,
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(300),
]

PAGES = ("/", "/octocat/web", "/octocat/web/47", "/octocat/web/48", "/octocat/web/47/1/4?q=fail",
         "/octocat/web/settings", "/octocat/web/new", "/agents", "/account", "/add",
         "/mobile/app-android/1204", "/mobile/app-ios/88", "/no/such")  # fmt: skip
LAST_ROW = ".log-lines > .chunk:last-child > .ln:last-child"
LAST_LINE = f"document.querySelector('{LAST_ROW} .t')?.textContent"
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def call(server: Site) -> Iterator[Callable[..., Any]]:
    with server.caller() as made:
        yield made


@pytest.fixture(scope="module")
def team(call: Callable[..., Any]) -> dict[str, int]:
    keys: dict[str, int] = call("team")
    return keys


@pytest.fixture(scope="module")
def chromium(server: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(server.url, tmp_path_factory.mktemp("screenshots")) as made:
        yield made


@pytest.fixture
def tab(chromium: Browser, call: Callable[..., Any], team: dict[str, int]) -> Iterator[Browser]:
    """A browser in which an administrator is logged in."""
    chromium.scripts(on=True)
    chromium.screen()
    chromium.open(f"/login/link/{call('login_key', name='mira')}")
    chromium.complaints()
    yield chromium
    chromium.open("/login")


def focused(tab: Browser) -> str:
    return str(tab.js("document.activeElement.textContent.trim()"))


def test_a_login_link_leads_to_the_repositories(tab: Browser) -> None:
    assert tab.driver.title == "Repositories · ciserver"
    assert tab.js("document.querySelector('.repo-rows').innerText.includes('octocat/web')")
    tab.shot("repos")


def test_no_page_breaks_the_policy_or_the_scripts(tab: Browser) -> None:
    for path in PAGES:
        tab.open(path)
        tab.shot("page" + path.replace("/", "-").replace("?", "-"))

    assert [text for text in tab.complaints() if "/no/such" not in text] == []


def test_ansi_codes_look_the_same_in_the_browser_and_on_the_server(tab: Browser) -> None:
    cases = json.loads(Path(__file__).with_name("ansi_cases.json").read_text())

    found = tab.driver.execute_async_script(
        "const [cases, done] = arguments;"
        "import('/static/dashboard/ansi.js').then(({spans}) => done(cases.map((each) =>"
        "  spans(each.line).map((span) => [span.text, span.classes]))))",
        cases,
    )

    assert found == [case["spans"] for case in cases]


def test_the_log_grows_and_the_page_goes_on_to_the_next_step(
    tab: Browser, call: Callable[..., Any], team: dict[str, int]
) -> None:
    tab.open("/octocat/web/48")
    call("print_lines", step=team["step"], first=1, count=3, text="\x1b[32mfresh\x1b[0m")

    tab.wait_js("the new line", f"{LAST_LINE} === 'fresh 3'")
    assert tab.js("document.querySelector(arguments[0]).textContent", f"{LAST_ROW} .f2") == "fresh"
    bottom = "scrollY + innerHeight >= document.documentElement.scrollHeight - 50"
    tab.wait_js("its end in sight", bottom)
    tab.shot("live")

    call("print_lines", step=team["step"], first=4, count=1, end=True)
    steps = {"3": "success", "4": "running"}
    call("move", build=team["build"], stage=1, stage_status="running", steps=steps)

    tab.wait_js(
        "the next step", "document.getElementById('log-title').innerText.endsWith('package')"
    )
    current = "document.querySelector('.step[aria-current]').innerText"
    tab.wait_js("it marked", f"{current}.includes('package')")

    call("move", build=team["build"], stage=1, stage_status="success", steps={"4": "success"},
         done="success")  # fmt: skip

    tab.wait_js("the build's end", "document.title.startsWith('success')")
    said = "document.getElementById('announce').textContent"
    tab.wait_js("it said", f"{said} === 'The build is now: success'")
    assert tab.js("document.getElementById('restart') !== null")
    assert tab.complaints() == []


def test_a_lost_connection_comes_back_where_it_was(
    tab: Browser, call: Callable[..., Any], server: Site
) -> None:
    step = call("alone", number=60, lines=5)
    tab.open("/octocat/web/60")
    call("print_lines", step=step, first=6, count=1)
    tab.wait_js("a live line", f"{LAST_LINE} === 'line 6'")

    server.stop()
    state = "document.querySelector('.live-state').textContent"
    tab.wait_js("the loss said", f"{state} === 'reconnecting…'")
    call("print_lines", step=step, first=7, count=4000)
    server.start()

    tab.wait_js("all lines", f"{LAST_LINE} === 'line 4006'")
    tab.wait_js("the return said", f"{state} === ''")
    call("print_lines", step=step, first=4007, count=1, end=True)
    tab.wait_js("the end", f"{LAST_LINE} === 'line 4007'")
    rows = "document.getElementById('log').lines.chunks.flatMap((chunk) => chunk.rows)"
    assert tab.js(f"{rows}.map((row) => row.text)") == [f"line {n}" for n in range(6, 4008)]
    tab.complaints()


def test_the_reader_who_scrolls_up_is_left_in_peace(tab: Browser, call: Callable[..., Any]) -> None:
    step = call("alone", number=61, lines=300)
    tab.open("/octocat/web/61")
    tab.wait_js("following", "scrollY > 1000")

    tab.driver.execute_script("scrollTo(0, 400)")
    pressed = "document.querySelector('[data-follow]').getAttribute('aria-pressed')"
    tab.wait_js("not following", f"{pressed} === 'false'")
    call("print_lines", step=step, first=301, count=50)
    tab.wait_js("the new lines", "document.getElementById('log').lines.next === 350")
    assert tab.js("scrollY") == 400  # where the reader was

    tab.driver.execute_script("document.querySelector('[data-follow]').click()")
    call("print_lines", step=step, first=351, count=1, end=True)
    tab.wait_js("following again", f"{LAST_LINE} === 'line 351' && scrollY > 1000")


def test_a_browser_keeps_few_of_very_many_lines(tab: Browser, call: Callable[..., Any]) -> None:
    step = call("alone", number=62, lines=5000)
    tab.open("/octocat/web/62")
    assert tab.js("document.querySelectorAll('.ln').length") == 1000

    call("print_lines", step=step, first=5001, count=250_000, end=True)
    tab.wait_js(
        "the last line",
        f"{LAST_LINE} === 'line 255000'",
    )
    assert tab.js("document.querySelectorAll('.ln').length") < 4000

    tab.driver.execute_script("document.querySelector('[data-earlier]').click(); scrollTo(0, 0)")
    first = "document.querySelector('.log-lines .ln .t')?.textContent"
    tab.wait_js("the first line", f"{first} === 'line 1'")
    tab.driver.execute_script("location.hash = '#L123456'")
    tab.wait_js("a line in the middle", "document.querySelector('.ln.marked')?.id === 'L123456'")
    tab.wait_js("it in sight", "Math.abs(document.querySelector('#L123456')"
                ".getBoundingClientRect().top - innerHeight / 2) < innerHeight / 2")  # fmt: skip
    assert tab.js("document.querySelectorAll('.ln').length") < 6000
    assert tab.complaints() == []


def test_a_link_to_a_line_far_up_opens_it(tab: Browser, call: Callable[..., Any]) -> None:
    call("alone", number=63, lines=3000, end=True)

    tab.open("/octocat/web/63/1/1#L42")

    tab.wait_js("the line", "document.querySelector('.ln.marked')?.innerText.includes('line 42')")


def test_everything_is_in_reach_of_the_keyboard(tab: Browser) -> None:
    tab.open("/octocat/web/47")
    tab.keys(Keys.TAB)
    assert focused(tab) == "Skip to the content"
    tab.keys(Keys.ENTER)
    tab.wait_js("the content", "document.activeElement.id === 'content'")

    tab.keys("j")
    assert "coverage" in focused(tab)
    tab.keys("k", "k")
    assert "lint" in focused(tab)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.js(outline) == "solid"
    tab.keys(Keys.ENTER)
    tab.wait_js("the step's log", "document.getElementById('log-title').innerText.includes('lint')")
    tab.wait_js("its address", "location.pathname === '/octocat/web/47/1/3'")
    tab.wait("the focus", lambda: "lint" in focused(tab))

    tab.keys("/")
    assert tab.js("document.activeElement.id") == "log-q"
    tab.keys("issues", Keys.ENTER)
    tab.wait_js("the hit", "document.querySelector('.hit')?.textContent === 'issues'")


def test_going_back_brings_the_step_before(tab: Browser) -> None:
    tab.open("/octocat/web/47")
    tab.driver.execute_script("document.querySelector('.step').click()")
    tab.wait_js(
        "the first step", "document.getElementById('log-title').innerText.includes('clone')"
    )

    tab.driver.back()

    tab.wait_js(
        "the failed step", "document.getElementById('log-title').innerText.includes('/ test')"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(tab: Browser, dark: bool) -> None:
    tab.screen(dark=dark)
    for path in PAGES:
        tab.open(path)
        assert tab.js(CONTRAST) == [], path
        tab.shot(("dark" if dark else "light") + path.replace("/", "-").replace("?", "-"))

    ground = tab.js("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, ground[4:-1].split(","))) < 60) is dark


def test_no_page_is_wider_than_a_phone(tab: Browser) -> None:
    tab.screen(360, 740)
    for path in PAGES:
        tab.open(path)
        tab.shot("phone" + path.replace("/", "-").replace("?", "-"))
        assert tab.js("document.documentElement.scrollWidth") <= 360, path


def test_it_filters_while_one_types(tab: Browser) -> None:
    tab.open("/")
    tab.keys("/", "mobile")

    tab.wait_js("fewer", "document.querySelectorAll('.repo-rows > li').length === 3")
    tab.wait_js("the address", "location.search === '?q=mobile'")
    assert tab.js("document.activeElement.id") == "q"


def test_builds_are_followed_and_cancelled_without_scripts(
    tab: Browser, call: Callable[..., Any]
) -> None:
    call("alone", number=64, lines=1200)
    tab.scripts(on=False)
    tab.open("/octocat/web/64")
    find = tab.driver.find_element
    assert find("id", "L1200").text.endswith("line 1200")
    assert "Reload the page" in find("tag name", "noscript").text
    find("partial link text", "Show earlier lines").click()
    tab.wait("the first line", lambda: find("id", "L1").text.endswith("line 1"))

    find("id", "cancel").click()

    tab.wait("the build's end", lambda: tab.driver.title.startswith("killed"))
