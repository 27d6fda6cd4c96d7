"""What every test may use: where the data lies, the built site, and a browser that notes each request."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("book", deadline=None)  # no timing is asserted: machines are busy
settings.load_profile("book")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two workers share the cores: idle threads must not spin

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that needs another host must show it here
]

# Chapters run in kernels of their own and inherit these, so they are set before anything starts.
for variable, folder in {"FACESR_DATA": "data", "FACESR_ORACLES": "oracles"}.items():
    if variable not in os.environ and (ROOT.parent / "shared" / folder).is_dir():
        os.environ[variable] = str(ROOT.parent / "shared" / folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what needs executed chapters: while they run on all cores the workers wait, and nothing trails."""
    executed = {"chapter_errors", "bare_chapter_errors"}
    items.sort(key=lambda item: executed.isdisjoint(getattr(item, "fixturenames", ())))


def _once(folder: Path, name: str, work: Callable[[], Any]) -> Any:
    """Return what ``work()`` gave to the first process of this test run that asked (as JSON)."""
    from filelock import FileLock

    answer = folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        if not answer.exists():
            answer.write_text(json.dumps(work()))
    return json.loads(answer.read_text())


@pytest.fixture
def interruptible() -> Callable[..., subprocess.Popen]:
    """Start a command whose processes heed Ctrl-C, which those who run tests in the background may have turned off."""
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return functools.partial(subprocess.Popen, start_new_session=True, preexec_fn=heed)


@pytest.fixture(scope="session")
def repository_url() -> str:
    """Return the one repository setting, from pyproject.toml."""
    return re.search(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def _errors(**options: Any) -> dict[str, str | None]:
    """Execute every chapter with profile=smoke: its name -> what went wrong, or None."""
    from facesr_lib import publishing

    try:
        runs = publishing.execute(profile="smoke", jobs=2, **options)
    except publishing.BookError as failure:
        runs = failure.runs
    return {run.chapter.stem: run.error for run in runs}


@pytest.fixture(scope="session")
def chapter_errors(run_folder: Path) -> dict[str, str | None]:
    """Execute every chapter, once per test run, for the site: its name -> what went wrong, or None."""
    from filelock import FileLock

    (ROOT / "_build").mkdir(exist_ok=True)
    with FileLock(ROOT / "_build" / "test.lock"):  # another test run in the same checkout
        return _once(run_folder, "chapters", _errors)


@pytest.fixture(scope="session")
def bare_chapter_errors(run_folder: Path) -> dict[str, str | None]:
    """Execute every chapter with nothing but the shipped data, and another seed: its name -> what went wrong."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("FACESR_DATA", "XDG_CACHE_HOME"):
            patch.setenv(variable, str(run_folder / variable.lower()))
            (run_folder / variable.lower()).mkdir(exist_ok=True)
        return _once(run_folder, "bare", lambda: _errors(out=run_folder / "executed", seed=1))


@pytest.fixture(scope="session")
def site(run_folder: Path, chapter_errors: dict[str, str | None]) -> Path:
    """Return the folder of the built pages (profile=smoke, warnings are errors)."""
    from filelock import FileLock

    from facesr_lib import publishing

    if failed := [name for name, error in chapter_errors.items() if error]:
        pytest.fail(f"no site: {', '.join(failed)} failed, see test_notebooks.py", pytrace=False)
    with FileLock(ROOT / "_build" / "test.lock"):
        return Path(
            _once(
                run_folder,
                "site",
                lambda: str(publishing.build("smoke", jobs=2, out=ROOT / "_build" / "test")),
            )
        )


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    """Serve the pages on this machine; ends with a slash."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start the system's Chromium; nothing is downloaded."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        message = f"no Chromium: none of {', '.join(CHROMIUM)} is on the PATH (Debian/Ubuntu: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def browser_page(browser: Any, site: Path, site_url: str) -> Iterator[Callable[..., Any]]:
    """Open a page of the site: ``browser_page("index.html", scheme="file" | "http", **context) -> Page``.

    The Playwright page carries ``outside_requests`` (URLs asked for beyond the site) and ``console_errors`` (also
    uncaught exceptions), both still growing while the test goes on. A full URL is opened as it is; further keywords
    go to the browser context (``color_scheme="dark"``, ``viewport=...``).
    """
    contexts = []

    def open_page(url_or_path: str | Path, scheme: str = "file", **context: Any) -> Any:
        url = str(url_or_path)
        if "://" not in url:
            path = Path(url).relative_to(site).as_posix() if Path(url).is_absolute() else url
            url = f"{site.as_uri()}/{path}" if scheme == "file" else site_url + path
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.outside_requests, page.console_errors = [], []

        def note_request(request: Any) -> None:
            if not request.url.startswith(("file://", "data:", "blob:", site_url)):
                page.outside_requests.append(request.url)

        page.on("request", note_request)
        page.on("console", lambda m: page.console_errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.console_errors.append(str(error)))
        page.goto(url, wait_until="load")
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
