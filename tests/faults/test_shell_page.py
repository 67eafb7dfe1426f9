"""A shell in a real browser, before a real server and a real agent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.cluster import Cluster
from tests.dashboard.site import Browser, browser
from tests.faults.test_shells import PIPELINE

pytestmark = [
    pytest.mark.service,
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(300),
]

_LINK = """
import django
django.setup()
from builds.models import User
from builds.secrets import login_link
print(login_link(User.objects.get(username="admin")))
"""
ROWS = "document.querySelector('.xterm-rows').innerText"
STATE = "document.querySelector('.live-state').textContent"


@pytest.fixture
def tab(server: Cluster, tmp_path: Path) -> Iterator[Browser]:
    """A browser in which the administrator is logged in."""
    environ = {**server.programs.prepare().environ, "DJANGO_SETTINGS_MODULE": "ciserver.settings"}
    argv = [sys.executable, "-c", _LINK]
    answer = subprocess.run(argv, env=environ, check=True, capture_output=True, text=True)
    with browser(server.client.access.url, tmp_path) as made:
        made.screen()
        made.open(f"/login/link/{answer.stdout.split()[-1]}")
        yield made


def test_restart_with_debug_look_into_it_and_go_on(server: Cluster, tab: Browser) -> None:
    server.agent()
    slug = server.repo(PIPELINE)
    first = server.build(slug)
    assert server.ended(slug, first)["status"] == "failure"

    tab.open(f"/{slug}/{first}")
    tab.press("#restart-debug")
    tab.wait_js("the new build", f"location.pathname === '/{slug}/{first + 1}'")
    tab.wait_js("the invitation", "document.querySelector('.held a') !== null")
    tab.shot("waits")
    tab.complaints()
    tab.press(".held a")

    tab.wait_js("the shell", f"{STATE} === 'connected'")
    tab.keys("echo sum$((40+2)) grün; cat file", Keys.ENTER)
    tab.wait_js("its answer", f"{ROWS}.includes('sum42 grün')")
    tab.wait_js("the step's file", f"/^data/m.test({ROWS})")
    tab.shot("shell")
    assert tab.complaints() == []  # nor is a style refused
    assert tab.js("getComputedStyle(document.querySelector('.xterm-rows')).color") != ""

    tab.keys("seq 200000; echo far$((1+1))", Keys.ENTER)
    tab.wait_js("the flood's end", f"{ROWS}.includes('far2')")
    tab.screen(900, 700)
    tab.keys("clear; stty size", Keys.ENTER)
    tab.wait_js("another size", f"/^\\d+ \\d+$/m.test({ROWS}) && !{ROWS}.includes('sum42')")

    server.web.kill()
    tab.wait_js("the loss said", f"{STATE} === 'reconnecting…'")
    server.web.start()
    server.wait_web()
    tab.wait_js("the shell again", f"{STATE} === 'connected'")
    tab.keys("echo back$((1+1))", Keys.ENTER)
    tab.wait_js("its answer", f"{ROWS}.includes('back2')")

    tab.press(".shell form button")
    tab.wait_js("the build", f"location.pathname === '/{slug}/{first + 1}'")
    tab.wait_js("its end", "document.title.startsWith('failure')")
    tab.open("/admin/builds/audit/?action=shell")
    assert tab.js(
        "document.body.innerText.includes(arguments[0])", f"{slug}#{first + 1} default/test"
    )
    assert tab.js("document.body.innerText.includes(arguments[0])", '"client": "browser"')
