"""A running server with a team's data, and a browser: what the browser test stands on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

from ciserver.embedded import keys
from tests import services

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


@dataclass
class Site:
    """A web process on its own data dir; `call` runs functions of `seed` on its database."""

    folder: Path
    port: int
    redis_url: str
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environ(self) -> dict[str, str]:
        own = {
            "CISERVER_DATA_DIR": str(self.folder / "data"),
            "CISERVER_BIND": f"127.0.0.1:{self.port}",
            "CISERVER_PUBLIC_URL": self.url,
            "CISERVER_REDIS_URL": self.redis_url,
            "DJANGO_SETTINGS_MODULE": "ciserver.settings",
        }
        kept = {key: text for key, text in os.environ.items() if not key.startswith("CISERVER_")}
        return kept | own

    def prepare(self) -> None:
        """Keys and tables."""
        (self.folder / "data").mkdir()
        keys.ensure(self.folder / "data")
        for database in ("default", "logs"):
            self.run_manage("migrate", "-v0", "--database", database)

    def run_manage(self, *arguments: str) -> None:
        argv = [sys.executable, "manage.py", *arguments]
        subprocess.run(argv, cwd=ROOT, env=self.environ(), check=True)

    def start(self) -> None:
        """Start the web process and wait until it answers."""
        argv = [sys.executable, "-m", "ciserver.web"]
        environ = self.environ() | {"PYTHONPATH": str(ROOT)}
        log = self.folder / "web.log"
        process = self.stack.enter_context(services.running(argv, log, environ))
        services.wait_for(
            "the web process", lambda: process.poll() is not None or services.listens(self.port)
        )
        assert process.poll() is None, log.read_text()

    def stop(self) -> None:
        """Stop the web process; it may be started again."""
        self.stack.close()

    @contextlib.contextmanager
    def caller(self) -> Iterator[Callable[..., Any]]:
        """`call(name, **arguments)` for functions of `seed`, in one other process."""
        argv = [sys.executable, "-m", "tests.dashboard.seed", "listen"]
        with subprocess.Popen(
            argv,
            cwd=ROOT,
            env=self.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin and process.stdout

            def call(name: str, /, **arguments: Any) -> Any:
                assert process.stdin and process.stdout
                process.stdin.write(json.dumps([name, arguments]) + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield call
            process.stdin.close()


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A server of its own, gone afterwards."""
    with services.redis() as redis:
        made = Site(folder, services.free_port(), redis.url)
        made.prepare()
        made.start()
        try:
            yield made
        finally:
            made.stop()


class Browser:
    """Headless Chromium."""

    def __init__(self, driver: webdriver.Chrome, base: str, shots: Path) -> None:
        self.driver = driver
        self.base = base
        self.shots = shots

    def open(self, path: str) -> None:
        """Load a page of the site."""
        self.driver.get(self.base + path)

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript expression; `arguments[0]` and so on are what is given."""
        return self.driver.execute_script(f"return ({script})", *arguments)

    def wait(self, what: str, ready: Callable[[], T], deadline_s: float = 60.0) -> T:
        """The first truthy answer of `ready`, which may fail while the page is changing."""
        end = time.monotonic() + deadline_s
        while True:
            with contextlib.suppress(WebDriverException):
                if answer := ready():
                    return answer
            if time.monotonic() > end:
                self.shot("timeout")
                raise AssertionError(f"{what}: not within {deadline_s:.0f} s; see {self.shots}")
            time.sleep(0.05)

    def wait_js(self, what: str, script: str, *arguments: Any) -> Any:
        """Wait until a JavaScript expression is true."""
        return self.wait(what, lambda: self.js(script, *arguments))

    def keys(self, *texts: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*texts).perform()

    def press(self, selector: str) -> None:
        """Click on what a selector finds, again if the page replaced it in that moment."""

        def click() -> bool:
            self.driver.find_element("css selector", selector).click()
            return True

        self.wait(f"{selector} to press", click)

    def screen(self, width: int = 1280, height: int = 860, *, dark: bool = False) -> None:
        """How large the window is, and which colours its person prefers."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def scripts(self, on: bool) -> None:
        """Whether pages may run scripts."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def shot(self, name: str) -> Path:
        """A picture of what is on the screen."""
        file = self.shots / f"{name}.png"
        assert self.driver.save_screenshot(str(file))
        return file

    def complaints(self) -> list[str]:
        """What the browser found wrong: refused code, missing files, thrown errors."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def browser(base: str, shots: Path) -> Iterator[Browser]:
    """A browser with its own, empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = services.program("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu",
                     "hide-scrollbars", "window-size=1280,860"):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(services.program("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(90)
        driver.set_script_timeout(90)
        yield Browser(driver, base, shots)
    finally:
        driver.quit()
