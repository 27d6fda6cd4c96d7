"""The figures in a live notebook: JupyterLab in a browser, and a kernel that hears what the reader's hand does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

TOKEN = "only-for-this-test"
CELLS = [
    "import os, torch\n"
    "from pathlib import Path\n"
    "from facesr_lib.widgets import BeforeAfter, LatentTrajectory, Run\n"
    "Path('kernel').write_text(str(os.getpid()))\n"
    "red, blue = torch.zeros(2, 3, 8, 8)\n"
    "red[0], blue[2] = 1, 1\n"
    "wipe = BeforeAfter(red, blue, alt='red, then blue')\n"
    "wipe",
    "faces = torch.stack([red, 0.5 * (red + blue), blue])\n"
    "corners = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])\n"
    "run = Run([0, 10, 20], corners, faces, {'pixel': 0.8 ** torch.arange(21)})\n"
    "path = LatentTrajectory({'PULSE': run}, alt='a path')\n"
    "path",
    "print(f'wipe at {wipe.position:.2f}, path at {path.step}')",
    "wipe.position, path.step = 0.25, 0",
]


@pytest.fixture
def lab(browser: Any, tmp_path: Path) -> Iterator[str]:
    """Start a Jupyter server on a free port for a notebook of CELLS; its address ends with a slash."""
    if importlib.util.find_spec("jupyterlab") is None:
        message = "no JupyterLab: pip install 'jupyterlab>=4.2' (the extras `lab` and `test` bring it)"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    root, log = tmp_path / "root", tmp_path / "server.log"
    root.mkdir()
    keys = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [keys | {"id": f"cell-{i}", "source": source} for i, source in enumerate(CELLS)],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (root / "figures.ipynb").write_text(json.dumps(notebook))
    # Folders of its own: none of the settings, workspaces and servers of whoever runs the tests.
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    quiet = tmp_path / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    settings = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,
        "ServerApp.root_dir": root,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": TOKEN,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in settings.items())]
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=os.environ | own, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield address(server, tmp_path / "runtime", log)
    finally:
        server.terminate()  # it shuts its kernels down before it ends
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()  # its kernels notice, and end too
            server.wait()
    if (root / "kernel").exists():
        kernel_process = int((root / "kernel").read_text())
        assert until(lambda: not runs(kernel_process), 20), "the kernel outlived its server"


def until(happened: Any, seconds: float) -> Any:
    """Ask again and again until there is an answer, or the time is over."""
    end = time.monotonic() + seconds
    while not (answer := happened()) and time.monotonic() < end:
        time.sleep(0.1)
    return answer


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written down which port it was given."""

    def written() -> str | None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                return f"http://127.0.0.1:{json.loads(file.read_text())['port']}/"
            except ValueError:  # half written
                return None
        return "none" if server.poll() is not None else None

    found = until(written, 60)
    if found in (None, "none"):
        pytest.fail(f"the Jupyter server did not start:\n{log.read_text()[-2000:]}", pytrace=False)
    return found


def test_figures_move_in_a_live_notebook_and_python_hears_of_it(browser: Any, lab: str) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    context = browser.new_context(viewport={"width": 1000, "height": 1600})
    try:
        page = context.new_page()
        outside: list[str] = []
        errors: list[str] = []
        own = (lab, lab.replace("http", "ws", 1), "data:", "blob:")
        for event in ("request", "websocket"):
            page.on(event, lambda to: None if to.url.startswith(own) else outside.append(to.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{lab}doc/tree/figures.ipynb?token={TOKEN}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)

        def run(number: int) -> Any:
            cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
            for _ in range(5):  # while JupyterLab is still settling it may not hear a key
                cell.locator(".cm-content").click()
                page.keyboard.press("Control+Enter")
                if until(lambda: cell.locator(".jp-InputPrompt").inner_text() != "[ ]:", 4):
                    break
            return cell.locator(".jp-OutputArea-output")

        # The wipe shows half of each picture, and only the second when the divider is at the left edge.
        wipe = run(0).locator(".facesr-wipe")
        wipe.wait_for(timeout=90_000)  # the kernel imports torch first
        wipe.locator("img").evaluate_all("images => Promise.all(images.map((image) => image.decode()))")
        half, divider = wipe.screenshot(), wipe.get_by_role("slider")
        divider.focus()
        page.keyboard.press("Home")
        expect(divider).to_have_attribute("aria-valuenow", "0")
        assert wipe.screenshot() != half

        # The path starts at its last step; one key to the left, dot and face are those of the step before.
        path = run(1)
        reading, dot = path.locator(".facesr-step"), path.locator(".facesr-plane .facesr-dot")
        face = path.locator("canvas").first
        expect(reading).to_have_text("step 20 of 20")
        colour = "c => [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3)"
        assert until(lambda: face.evaluate(colour)[2] > 240, 20), "the last face is blue"
        places = [dot.get_attribute("cx")]
        path.get_by_role("slider").focus()
        page.keyboard.press("ArrowLeft")
        expect(reading).to_have_text("step 10 of 20")
        assert face.evaluate(colour) == pytest.approx([128, 0, 128], abs=12)
        places.append(dot.get_attribute("cx"))

        # What the hand did is known in Python, and what Python does is seen.
        expect(run(2)).to_have_text("wipe at 0.00, path at 10")
        moved = wipe.screenshot()
        run(3)
        expect(divider).to_have_attribute("aria-valuenow", "25")
        assert wipe.screenshot() not in (half, moved)
        expect(reading).to_have_text("step 0 of 20")
        assert face.evaluate(colour) == pytest.approx([255, 0, 0], abs=12)
        assert len({*places, dot.get_attribute("cx")}) == 3
        assert (outside, errors) == ([], [])
    finally:
        context.close()
