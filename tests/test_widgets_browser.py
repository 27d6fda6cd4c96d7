"""The figures move: their scripts in a bare page with a stand-in for the notebook, then the chapters of the site."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from facesr_lib import assets
from facesr_lib.widgets import (
    BeforeAfter,
    CameraStages,
    LambdaExplorer,
    LatentTrajectory,
    NormHistogram,
    Playground,
    Run,
    Sweep,
)

pytestmark = pytest.mark.browser

# What anywidget hands to a figure's script, without a notebook: get, set, save_changes, on, off.
PAGE = """<!doctype html><html {attributes}><meta charset="utf-8"><style>{css}</style><body style="margin: 8px">
<div id="el"></div><script type="module">
const state = {state};
for (const [name, bytes] of Object.entries({pictures})) {{
  state[name] = new DataView(Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)).buffer);
}}
const listeners = {{}};
const model = {{
  get: (name) => state[name],
  set(name, value) {{
    if (state[name] === value) return;
    state[name] = value;
    for (const listener of listeners[`change:${{name}}`] ?? []) listener();
  }},
  saved: 0,
  save_changes() {{ this.saved += 1; }},
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((other) => other !== listener)),
}};
const {{ default: widget }} = await import(URL.createObjectURL(new Blob([{script}], {{ type: "text/javascript" }})));
window.cleanup = widget.render({{ model, el: document.getElementById("el") }});
window.model = model;
</script></body></html>"""


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """``show(widget, attributes="", clock=False, **context)`` -> a page with nothing but the figure, drawn."""
    contexts = []

    def open_page(widget: Any, attributes: str = "", clock: bool = False, **context: Any) -> Any:
        state = {name: value for name, value in widget.get_state().items() if not name.startswith("_")}
        pictures = {name: base64.b64encode(v).decode() for name, v in state.items() if isinstance(v, bytes)}
        plain = {name: v for name, v in state.items() if name not in pictures and name not in ("layout", "comm")}
        content = PAGE.format(
            attributes=attributes,
            css=widget._css,
            state=json.dumps(plain),
            pictures=json.dumps(pictures),
            script=json.dumps(widget._esm).replace("</", "<\\/"),
        )
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        if clock:
            page.clock.install(time="2026-01-01T00:00:00")
        page.set_content(content)
        page.wait_for_function("window.model && [...document.images].every((image) => image.complete)")
        if clock:
            page.clock.pause_at("2026-01-01T01:00:00")  # from here on, time is the test's
        return page

    yield open_page
    for context in contexts:
        errors = [error for page in context.pages for error in page.errors]
        context.close()
        assert errors == []


def scroll_to_widget(page: Any) -> None:
    """Bring the first figure that moves near the view: its scripts are loaded then."""
    page.evaluate("document.querySelector('script[type*=widget-view]').parentElement.scrollIntoView()")


def pixels(locator: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))


def seen(wipe: Any, at: float) -> str:
    """Which picture is seen at this fraction of the width, in a row clear of handle and labels."""
    picture = pixels(wipe)
    red, _, blue = picture[picture.shape[0] // 4, int(at * picture.shape[1])].astype(int)
    return "before" if red > blue else "after"


@pytest.fixture(scope="module")
def wipe_widget() -> BeforeAfter:
    red, blue = torch.zeros(3, 8, 8), torch.zeros(3, 64, 64)
    red[0], blue[2] = 1, 1
    return BeforeAfter(red, blue, labels=("low", "high"), alt="red, then blue", title="A <b>wipe</b>", width=400)


def test_wipe_follows_the_arrow_keys(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    page = show(wipe_widget)
    wipe, slider = page.locator(".facesr-wipe"), page.get_by_role("slider")
    assert (seen(wipe, 0.4), seen(wipe, 0.6)) == ("before", "after")
    page.keyboard.press("Tab")
    assert slider.evaluate("node => node === document.activeElement")
    for key, position in (
        ("ArrowLeft", 0.48),
        ("PageDown", 0.38),
        ("ArrowRight", 0.4),
        ("PageUp", 0.5),
        ("ArrowUp", 0.52),
        ("End", 1),
        ("ArrowRight", 1),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        page.keyboard.press(key)
        assert page.evaluate("model.get('position')") == pytest.approx(position)
        assert slider.get_attribute("aria-valuenow") == str(round(100 * position))
    assert seen(wipe, 0.05) == "after"
    page.keyboard.press("End")
    assert seen(wipe, 0.95) == "before"
    assert page.evaluate("model.saved") == 10


def test_wipe_follows_the_mouse_only_while_it_is_pressed(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    page = show(wipe_widget)
    wipe = page.locator(".facesr-wipe")
    box = wipe.bounding_box()
    assert (box["width"], box["height"]) == (400, 400)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 200, middle)
    page.mouse.move(box["x"] + 320, middle)
    assert page.evaluate("model.get('position')") == 0.5
    page.mouse.move(box["x"] + 200, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, middle)
    assert page.evaluate("model.get('position')") == pytest.approx(0.25)
    page.mouse.move(box["x"] - 50, middle)  # beyond the edge
    assert page.evaluate("model.get('position')") == 0
    page.mouse.move(box["x"] + 100, middle)
    page.mouse.up()
    page.mouse.move(box["x"] + 300, middle)
    assert page.evaluate("model.get('position')") == pytest.approx(0.25)
    assert (seen(wipe, 0.2), seen(wipe, 0.4)) == ("before", "after")


def test_wipe_follows_a_finger(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    page = show(wipe_widget, has_touch=True, viewport={"width": 360, "height": 600})
    wipe = page.locator(".facesr-wipe")
    box = wipe.bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 20)
    assert page.evaluate("model.get('position')") == pytest.approx(0.8, abs=0.01)
    assert seen(wipe, 0.7) == "before"


def test_wipe_follows_python_and_lets_go_at_the_end(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    page = show(wipe_widget)
    page.evaluate("model.set('position', 0.9)")
    assert seen(page.locator(".facesr-wipe"), 0.8) == "before"
    page.evaluate("cleanup(); model.set('position', 0.1)")
    assert page.get_by_role("slider").get_attribute("aria-valuenow") == "90"


def test_wipe_shows_low_resolution_as_squares(show: Callable[..., Any]) -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    large = torch.rand(3, 256, 256)
    page = show(BeforeAfter(board.expand(3, 8, 8).float(), large, alt="a board", width=400))
    page.evaluate("model.set('position', 1)")
    square = pixels(page.locator(".facesr-wipe"))[105:145, 55:95]  # row 2, column 1, but for its edges
    assert (square == 255).all()
    assert page.locator(".facesr-after img").evaluate("image => image.style.imageRendering") == "auto"


def test_wipe_is_enlarged_and_scrolled_over(show: Callable[..., Any]) -> None:
    red, blue = torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)
    red[0], blue[2] = 1, 1
    blue[1, :32] = 1  # above, it is another blue
    page = show(BeforeAfter(red, blue, alt="red, then blue", width=400, closest=8))
    view, slider = page.locator(".facesr-view"), page.get_by_role("slider", name="Zoom")
    assert slider.get_attribute("max") == "8"
    slider.fill("4")
    assert page.evaluate("model.get('zoom')") == 4
    assert page.evaluate("model.saved") == 1
    assert view.bounding_box()["height"] == 400  # the page does not grow
    assert page.locator(".facesr-wipe").bounding_box()["width"] == 1600
    middle = view.evaluate("v => [v.scrollLeft + v.clientWidth / 2, v.scrollTop + v.clientHeight / 2]")
    assert middle == pytest.approx([800, 800], abs=2)
    assert (seen(view, 0.4), seen(view, 0.6)) == ("before", "after")
    box = view.bounding_box()
    page.mouse.click(box["x"] + 320, box["y"] + 100)  # three tenths of a view right of the middle
    assert page.evaluate("model.get('position')") == pytest.approx(0.5 + 0.3 / 4, abs=0.01)
    view.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function("document.querySelector('.facesr-view').scrollTop < 590")
    page.evaluate("model.set('zoom', 1)")
    assert page.locator(".facesr-wipe").bounding_box()["width"] == 400
    assert page.locator("output").inner_text() == "1.00 ×"


def test_a_wipe_that_is_not_enlarged_has_no_second_slider(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    assert show(wipe_widget).get_by_role("slider").count() == 1


def test_title_is_text_not_markup(show: Callable[..., Any], wipe_widget: BeforeAfter) -> None:
    page = show(wipe_widget)
    assert page.locator(".facesr-title").inner_text() == "A <b>wipe</b>"
    assert page.get_by_role("figure", name="red, then blue").count() == 1


COLOURS = {"PULSE": [(200, 40, 40), (40, 200, 40), (40, 40, 200)], "RLS": [(200, 200, 40), (40, 200, 200)]}
STEPS = {"PULSE": [0, 10, 20], "RLS": [0, 15]}


@pytest.fixture(scope="module")
def path_widget() -> LatentTrajectory:
    def run(name: str) -> Run:
        faces = torch.tensor(COLOURS[name])[:, :, None, None].expand(-1, -1, 32, 32) / 255
        s = torch.arange(STEPS[name][-1] + 1)
        losses = {"pixel": 100 * 0.7**s} if name == "RLS" else {"pixel": 50 * 0.8**s, "cross": -s.float()}
        return Run(
            STEPS[name], torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])[: len(s)][: len(faces)], faces, losses
        )

    runs = {name: run(name) for name in COLOURS}
    return LatentTrajectory(runs, background=torch.randn(50, 2), alt="two paths", title="Two", caption="A plane")


def face(page: Any, run: int) -> list[int]:
    return page.locator("canvas").nth(run).evaluate("c => [...c.getContext('2d').getImageData(16, 16, 1, 1).data]")[:3]


def dot(page: Any, run: int) -> tuple[float, float]:
    node = page.locator(".facesr-plane .facesr-dot").nth(run)
    return float(node.get_attribute("cx")), float(node.get_attribute("cy"))


def test_slider_moves_dot_face_and_cursor(show: Callable[..., Any], path_widget: LatentTrajectory) -> None:
    page = show(path_widget)
    slider = page.get_by_role("slider", name="Step of the search")
    assert face(page, 0) == pytest.approx(COLOURS["PULSE"][2], abs=12)
    dots, cursor = {}, {}
    slider.focus()
    page.keyboard.press("Home")
    # The slider stops at every step that either run has; a run shows its last stored step before that.
    for stop, (step, k, other) in enumerate([(0, 0, 0), (10, 1, 0), (15, 1, 1), (20, 2, 1)]):
        if stop:
            page.keyboard.press("ArrowRight")
        assert page.evaluate("model.get('step')") == step
        assert page.locator(".facesr-step").inner_text() == f"step {step} of 20"
        assert face(page, 0) == pytest.approx(COLOURS["PULSE"][k], abs=12)
        assert face(page, 1) == pytest.approx(COLOURS["RLS"][other], abs=12)
        dots[step], cursor[step] = dot(page, 0), page.locator(".facesr-cursor").first.get_attribute("d")
    assert dots[10] == dots[15]
    assert len({dots[0], dots[10], dots[20]}) == 3
    assert len(set(cursor.values())) == 4
    # (0, 0), (1, 2), (3, 1): y points up, and a unit is as long on both axes.
    (x0, y0), (x1, y1), (x2, y2) = dots[0], dots[10], dots[20]
    unit = (x2 - x0) / 3
    assert (x1 - x0, y0 - y1, y0 - y2) == pytest.approx((unit, 2 * unit, unit), abs=0.3)
    assert slider.get_attribute("aria-valuetext") == "step 20 of 20: PULSE pixel 0.576, cross −20; RLS pixel 0.475"


def test_mouse_on_the_slider_moves_the_picture(show: Callable[..., Any], path_widget: LatentTrajectory) -> None:
    page = show(path_widget)
    before = page.screenshot()
    box = page.get_by_role("slider").bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    assert page.evaluate("model.get('step')") == 0
    assert page.screenshot() != before


def test_path_follows_python_between_stored_steps(show: Callable[..., Any], path_widget: LatentTrajectory) -> None:
    page = show(path_widget)
    page.evaluate("model.set('step', 14)")
    assert page.locator(".facesr-step").inner_text() == "step 10 of 20"
    page.evaluate("model.set('step', 1000)")
    assert page.locator(".facesr-step").inner_text() == "step 20 of 20"
    page.evaluate("cleanup(); model.set('step', 0)")
    assert page.locator(".facesr-step").inner_text() == "step 20 of 20"


@pytest.mark.parametrize(("motion", "first"), [("no-preference", 200), ("reduce", 1500)])
def test_play_runs_to_the_end_and_stops(
    show: Callable[..., Any], path_widget: LatentTrajectory, motion: str, first: int
) -> None:
    page = show(path_widget, clock=True, reduced_motion=motion)
    page.get_by_role("button", name="Play").click()
    assert page.evaluate("model.get('step')") == 0  # from the end it starts again
    page.clock.run_for(first - 50)
    assert page.evaluate("model.get('step')") == 0
    page.clock.run_for(100)
    assert page.evaluate("model.get('step')") == 10
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(10 * first)
    assert page.evaluate("model.get('step')") == 10
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(10 * first)
    assert page.evaluate("model.get('step')") == 20
    assert page.get_by_role("button", name="Play").count() == 1


def luminance(colour: str) -> float:
    channels = [float(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")]
    assert len(channels) == 3, f"{colour} is not opaque"
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def require_legible(page: Any, dark: bool, *texts: str, drawn: dict[str, str] | None = None) -> None:
    """The ground is opaque, dark or light; texts stand out from it, and what is drawn, selector → property, too."""

    def style(selector: str, name: str) -> float:
        return luminance(page.locator(selector).first.evaluate(f"node => getComputedStyle(node)['{name}']"))

    ground = style(".facesr", "backgroundColor")
    assert (ground < 0.1) == dark
    for selector, name in {**dict.fromkeys(texts, "color"), **(drawn or {})}.items():
        low, high = sorted([ground, style(selector, name)])
        assert (high + 0.05) / (low + 0.05) >= (3 if name == "stroke" or "dot" in selector else 4.5), selector


def require_fit(page: Any, width: int) -> None:
    """Nothing hangs out of the figure, nor the figure out of the page."""
    overhanging = page.evaluate(
        "(() => { const frame = document.querySelector('.facesr-body').getBoundingClientRect();"
        " return [...document.querySelectorAll('.facesr-body *')].filter((node) => {"
        " const box = node.getBoundingClientRect();"
        " return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);"
        " }).map((node) => node.outerHTML.slice(0, 80)); })()"
    )
    assert overhanging == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(
    ("attributes", "system", "dark"),
    [
        ("", "light", False),
        ("", "dark", True),
        ('data-theme="light"', "dark", False),
        ('data-theme="dark"', "light", True),
    ],
)
def test_figures_are_opaque_and_legible_in_both_schemes(
    show: Callable[..., Any], path_widget: LatentTrajectory, attributes: str, system: str, dark: bool
) -> None:
    page = show(path_widget, attributes, color_scheme=system)
    dots = {f".facesr-plane .facesr-run-{run} .facesr-dot": "fill" for run in (0, 1)}
    texts = ".facesr-title", "figcaption", ".facesr-step", ".facesr-key", ".facesr-play", ".facesr-head"
    require_legible(page, dark, *texts, drawn={".facesr-axes text": "fill"} | dots)


@pytest.mark.parametrize("width", [360, 720])
def test_figures_fit_the_screen(
    show: Callable[..., Any], path_widget: LatentTrajectory, wipe_widget: BeforeAfter, width: int
) -> None:
    for widget in (path_widget, wipe_widget):
        require_fit(show(widget, viewport={"width": width, "height": 800}), width)


@pytest.mark.parametrize("width", [360, 720])
def test_face_stands_beside_the_plane_where_there_is_room(
    show: Callable[..., Any], path_widget: LatentTrajectory, width: int
) -> None:
    page = show(path_widget, viewport={"width": width, "height": 800})
    plane, faces = (page.locator(selector).bounding_box() for selector in (".facesr-plane", ".facesr-faces"))
    assert (faces["y"] < plane["y"] + 10) == (width == 720)
    page.set_viewport_size({"width": 1080 - width, "height": 800})  # and moves when the room does
    page.wait_for_function(f"document.querySelector('.facesr-body').dataset.wide === '{str(width == 360).lower()}'")
    plane, faces = (page.locator(selector).bounding_box() for selector in (".facesr-plane", ".facesr-faces"))
    assert (faces["y"] < plane["y"] + 10) == (width == 360)


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_wipe_moves_in_chapter_1(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("01-problem.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    wipe = page.locator(".facesr-wipe").first
    wipe.wait_for()
    slider = wipe.get_by_role("slider")
    slider.focus()
    still = wipe.screenshot()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuenow") == "0"
    by_key = wipe.screenshot()
    assert by_key != still
    box = wipe.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 60)
    page.mouse.up()
    assert slider.get_attribute("aria-valuenow") == "90"
    assert wipe.screenshot() != by_key


def test_pictures_grow_with_the_wipe_in_chapter_12(browser_page: Callable[..., Any]) -> None:
    page = browser_page("12-photograph.html")
    scroll_to_widget(page)
    figure = page.locator("figure:has(.facesr-wipe)").first
    zoom = figure.get_by_role("slider", name="Zoom")
    zoom.focus()
    page.keyboard.press("End")
    wipe = figure.locator(".facesr-wipe").bounding_box()
    assert wipe["width"] > 1600
    pictures = figure.locator(".facesr-layer img").all()
    assert [picture.bounding_box() for picture in pictures] == [wipe, wipe]


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_path_moves_in_chapter_3(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("03-pulse.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    figure = page.locator("figure:has(.facesr-plane)").first
    figure.wait_for()
    slider, face_shown = figure.get_by_role("slider"), figure.locator("canvas").first
    where = figure.locator(".facesr-plane .facesr-dot").first

    def state() -> tuple[str | None, str | None, bytes]:
        return where.get_attribute("cx"), where.get_attribute("cy"), face_shown.screenshot()

    slider.focus()
    end = state()
    page.keyboard.press("Home")
    start = state()
    assert start[:2] != end[:2]
    assert start[2] != end[2]
    page.keyboard.press("ArrowRight")
    assert state()[:2] != start[:2]
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert state() == end
    assert page.outside_requests == []


@pytest.fixture(scope="module")
def norm_widget() -> NormHistogram:
    z = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    return NormHistogram({"z": z, "wide": 1.5 * z}, dof=16, title="Two", caption="The band")


def areas(page: Any) -> int:
    return page.locator(".facesr-norms .facesr-area").count()


def test_checkbox_takes_a_set_out_of_the_histogram(show: Callable[..., Any], norm_widget: NormHistogram) -> None:
    page = show(norm_widget)
    drawing, box = page.locator(".facesr-norms"), page.get_by_role("checkbox", name="wide")
    assert (areas(page), box.is_checked()) == (2, True)
    both = drawing.screenshot()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert box.evaluate("node => node === document.activeElement")
    page.keyboard.press("Space")
    assert page.evaluate("model.get('shown')") == ["z"]
    assert (areas(page), page.evaluate("model.saved")) == (1, 1)
    assert drawing.screenshot() != both
    page.keyboard.press("Space")
    assert page.evaluate("model.get('shown')") == ["z", "wide"]
    assert drawing.screenshot() == both


def test_sliders_change_bars_and_axis(show: Callable[..., Any], norm_widget: NormHistogram) -> None:
    page = show(norm_widget)
    bars = page.locator(".facesr-norms .facesr-area").first

    def corners() -> int:
        return bars.get_attribute("d").count("L")

    fine = corners()
    page.get_by_role("slider", name="Width of a bar").focus()
    page.keyboard.press("End")
    assert page.evaluate("model.get('coarseness')") == 16
    assert corners() < fine / 4
    page.keyboard.press("Home")
    assert corners() > 1.5 * fine
    cut = page.locator("tbody tr").nth(1).locator("td").last
    before = float(cut.inner_text().split()[0])
    end = page.get_by_role("slider", name="Axis ends at")
    end.focus()
    page.keyboard.press("Home")
    upper = page.evaluate("model.get('upper')")
    assert norm_widget.band[1] < upper < norm_widget.upper
    assert end.get_attribute("aria-valuetext") == page.locator(".facesr-reading").first.inner_text()
    counts = norm_widget.series[1]["counts"][: round(upper / norm_widget.bin_width)]
    assert float(cut.inner_text().split()[0]) == pytest.approx(100 * (1 - sum(counts) / 4000), rel=0.01)
    assert before < float(cut.inner_text().split()[0])


def test_histogram_reads_out_its_numbers_and_follows_python(
    show: Callable[..., Any], norm_widget: NormHistogram
) -> None:
    page = show(norm_widget)
    row = page.get_by_role("row", name="wide").locator("td").all_inner_texts()
    one = norm_widget.series[1]
    assert [float(cell.split()[0]) for cell in row[:4]] == pytest.approx(
        [one["mean"], one["std"], float(f"{one['ks']:.2g}"), 100 * one["outside"]], rel=0.01
    )
    page.evaluate("model.set('shown', [])")
    assert areas(page) == 0
    assert page.locator(".facesr-norms .facesr-reference").count() == 1
    assert not page.get_by_role("checkbox", name="wide").is_checked()
    page.evaluate("cleanup(); model.set('shown', ['z'])")
    assert areas(page) == 0


@pytest.fixture(scope="module")
def trade_widget() -> LambdaExplorer:
    def sweep(hues: list[tuple[int, int, int]], fidelity: list[float], realism: list[float]) -> Sweep:
        one = torch.tensor(hues, dtype=torch.float)[:, None, :, None, None].expand(-1, 2, -1, 32, 32) / 255
        return Sweep([0, 1e-4, 1e-3][: len(hues)], fidelity, realism, one)

    return LambdaExplorer(
        {
            "λ_w": sweep(COLOURS["PULSE"], [1.0, 2.0, 3.0], [-50.0, 0.0, 25.0]),
            "λ_g": sweep(COLOURS["RLS"], [1.5, 2.5], [-50.0, -25.0]),
        },
        beside={"LR": torch.rand(2, 3, 8, 8)},
        fidelity="residual, lower is better",
        realism="log p",
        alt="a trade",
        title="Two weights",
        caption="Two faces",
    )


def place(page: Any) -> tuple[float, float]:
    node = page.locator(".facesr-plane .facesr-dot:visible")
    assert node.count() == 1
    return float(node.get_attribute("cx")), float(node.get_attribute("cy"))


def test_arrow_keys_turn_the_weight(show: Callable[..., Any], trade_widget: LambdaExplorer) -> None:
    page = show(trade_widget)
    slider = page.get_by_role("slider", name="Value of λ_w")
    slider.focus()
    places = []
    for k, (name, realism) in enumerate([("λ_w = 0", "−50"), ("λ_w = 1e−4", "0"), ("λ_w = 0.001", "25")]):
        if k:
            page.keyboard.press("ArrowRight")
        assert page.evaluate("model.get('point')") == k
        for shown in (0, 1):
            assert face(page, shown) == pytest.approx(COLOURS["PULSE"][k], abs=12)
        assert page.locator(".facesr-step").inner_text() == name
        expected = f"{name}; residual, lower is better: {k + 1}; log p: {realism}"
        assert slider.get_attribute("aria-valuetext") == expected
        assert (
            page.locator(".facesr-values").inner_text().split() == expected.split("; ", 1)[1].replace(";", "").split()
        )
        places.append(place(page))
    # (1, -50), (2, 0), (3, 25): to the right, and up by two thirds, then by one.
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, 2 * (y1 - y2)), abs=0.3)
    assert x1 > x0
    assert y1 < y0
    assert page.evaluate("model.saved") == 2


def test_another_weight_shows_its_own_faces(show: Callable[..., Any], trade_widget: LambdaExplorer) -> None:
    page = show(trade_widget)
    still = page.locator("canvas").nth(2).screenshot()
    page.evaluate("model.set('point', 2)")
    first = place(page)
    page.get_by_role("radio", name="λ_w").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('sweep')") == 1
    assert page.get_by_role("radio", name="λ_g").is_checked()
    assert face(page, 0) == pytest.approx(COLOURS["RLS"][1], abs=12)  # its last, as it has but two
    assert page.locator(".facesr-step").inner_text() == "λ_g = 1e−4"
    assert place(page) != first
    assert page.locator("canvas").nth(2).screenshot() == still
    page.evaluate("cleanup(); model.set('sweep', 0)")
    assert page.locator(".facesr-step").inner_text() == "λ_g = 1e−4"


@pytest.mark.parametrize("dark", [False, True])
def test_new_figures_are_opaque_and_legible_in_both_schemes(
    show: Callable[..., Any], norm_widget: NormHistogram, trade_widget: LambdaExplorer, dark: bool
) -> None:
    texts = {
        norm_widget: (".facesr-table thead th", ".facesr-table td", ".facesr-table label", ".facesr-setting"),
        trade_widget: (".facesr-name", ".facesr-choice label", ".facesr-step", ".facesr-values", ".facesr-above"),
    }
    for widget, selectors in texts.items():
        page = show(widget, color_scheme="dark" if dark else "light")
        require_legible(page, dark, *selectors, drawn={".facesr-run-1 .facesr-line": "stroke"})


@pytest.mark.parametrize("width", [360, 720])
def test_new_figures_fit_the_screen(
    show: Callable[..., Any], norm_widget: NormHistogram, trade_widget: LambdaExplorer, width: int
) -> None:
    z = torch.randn(99, 512)
    long = NormHistogram({"Z": z, "W, standardised": z.flip(0), "PULSE": 1.2 * z, "flow": 0.9 * z})
    for widget in (norm_widget, long, trade_widget):
        require_fit(show(widget, viewport={"width": width, "height": 800}), width)


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_histogram_moves_in_chapter_5(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("05-gaussianising.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    figure = page.locator("figure:has(.facesr-norms)").first
    figure.wait_for()
    drawing = figure.locator(".facesr-norms")
    start = drawing.screenshot()
    figure.get_by_role("checkbox").first.focus()
    page.keyboard.press("Space")
    without = drawing.screenshot()
    assert without != start
    page.keyboard.press("Space")
    assert drawing.screenshot() == start
    figure.get_by_role("slider", name="Width of a bar").focus()
    page.keyboard.press("End")
    assert drawing.screenshot() not in (start, without)
    assert page.outside_requests == []


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_weight_turns_in_chapter_6(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("06-rls.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    figure = page.locator("figure").filter(has=page.get_by_role("radio", name="λ_w"))
    figure.wait_for()
    slider = figure.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    start, first = figure.locator("canvas").first.screenshot(), slider.get_attribute("aria-valuetext")
    page.keyboard.press("End")
    assert figure.locator("canvas").first.screenshot() != start
    assert slider.get_attribute("aria-valuetext") != first
    figure.get_by_role("radio", name="λ_w").focus()
    page.keyboard.press("ArrowRight")
    assert figure.get_by_role("radio", name="λ_g").is_checked()
    assert slider.get_attribute("aria-valuetext").startswith("λ_g = 0.01")
    assert page.outside_requests == []


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_training_is_pulled_through_in_chapter_8(browser_page: Callable[..., Any], scheme: str) -> None:
    page = browser_page("08-progressive.html", scheme=scheme)
    if not page.locator("script[type*=widget-view]").count():
        pytest.skip("without the held-out faces nothing moves in chapter 8")
    scroll_to_widget(page)
    figure = page.locator("figure").filter(has=page.get_by_role("slider"))
    figure.wait_for()
    slider = figure.get_by_role("slider")
    moments = load_file(assets.checked("progressive-moments"))["iterations"].tolist()
    first, *_, last = (f"{float(f'{moment:.3g}'):g}" for moment in moments)  # as the figure rounds them
    slider.focus()
    page.keyboard.press("Home")
    start = figure.screenshot()
    assert slider.get_attribute("aria-valuetext").startswith(f"iterations = {first};")
    page.keyboard.press("End")
    assert figure.screenshot() != start
    assert slider.get_attribute("aria-valuetext").startswith(f"iterations = {last};")
    assert page.outside_requests == []


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_loupe_and_pieces_move_in_chapter_9(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("09-lsrgan.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    for title in ("Under the loupe", "Pieces of straight lines"):
        figure = page.locator("figure").filter(has_text=title)
        figure.wait_for()
        figure.get_by_role("slider").last.focus()
        page.keyboard.press("Home")
        start = figure.screenshot()
        page.keyboard.press("End")
        assert figure.screenshot() != start
    assert figure.get_by_role("slider").get_attribute("aria-valuetext").startswith("n = 32; true error ε: 0.0133")
    assert page.outside_requests == []


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_the_photograph_of_chapter_12_is_enlarged_and_wiped(browser_page: Callable[..., Any], scheme: str) -> None:
    page = browser_page("12-photograph.html", scheme=scheme)
    scroll_to_widget(page)
    figure = page.locator("figure").filter(has_text="zoom in, then move the divider")
    figure.wait_for()
    seen = [figure.screenshot()]
    figure.locator("input[type=range]").focus()
    page.keyboard.press("End")
    seen.append(figure.screenshot())
    figure.locator(".facesr-divider [role=slider]").focus()
    page.keyboard.press("Home")
    seen.append(figure.screenshot())
    assert len(set(seen)) == 3
    assert "8.00 ×" in figure.inner_text()
    assert page.outside_requests == []


HUES = {"LR": 0, "bicubic": 40, "PULSE": 80, "RLS": 120, "truth": 200}  # how red each method's faces are


@pytest.fixture(scope="module")
def play_widget() -> Playground:
    def faces(hue: int, scale: int = 0) -> Tensor:
        pictures = torch.full((3, 3, 16, 16), 0.5)
        pictures[:, 0] = hue / 255
        pictures[:, 1] = scale / 20
        pictures[:, 2] = torch.tensor([0.1, 0.5, 0.9])[:, None, None]
        return pictures

    made = {s: {name: faces(HUES[name], s) for name in ("bicubic", "PULSE", "RLS")} for s in (4, 8)}
    return Playground(made, faces(HUES["truth"]), alt="three faces", title="Guess", caption="Of three")


def reds(page: Any) -> list[int]:
    """How red each picture of the gallery is."""
    pixel = "all => all.map(c => c.getContext('2d').getImageData(8, 8, 1, 1).data[0])"
    return page.eval_on_selector_all(".facesr-gallery canvas", pixel)


def test_playground_shows_another_face_and_scale_by_the_arrow_keys(show: Callable[..., Any], play_widget) -> None:
    page = show(play_widget)
    page.locator(".facesr-gallery canvas").first.wait_for()
    labels = page.locator(".facesr-gallery b").all_inner_texts()
    assert labels == ["given: 4× smaller", "bicubic", "PULSE", "RLS", "truth"]
    assert reds(page)[1:] == pytest.approx([40, 80, 120, 200], abs=12)
    still, said = page.locator(".facesr-gallery").screenshot(), page.locator("output").inner_text()
    page.get_by_role("radio", name="Face 1").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('face')") == 1
    second = page.locator(".facesr-gallery").screenshot()
    assert second != still
    assert page.locator("output").inner_text() != said
    page.get_by_role("radio", name="4×").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('scale')") == 1
    assert page.locator(".facesr-gallery").screenshot() != second
    assert page.locator(".facesr-gallery b").first.inner_text() == "given: 8× smaller"
    psnr = f"{play_widget.psnr[1][1][1]:.1f} dB"
    assert psnr in page.locator(".facesr-card").nth(2).inner_text()
    page.evaluate("cleanup(); model.set('face', 0)")
    assert page.locator("output").inner_text().startswith("Face 2")


def test_guessing_hides_the_names_and_answers(show: Callable[..., Any], play_widget) -> None:
    page = show(play_widget)
    page.locator(".facesr-gallery canvas").first.wait_for()
    page.get_by_role("radio", name="compare").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('mode')") == "guess"
    for asked in (1, 2):
        assert "Which?" in page.locator("output").inner_text()
        assert page.locator(".facesr-gallery b").all_inner_texts()[1:] == ["A", "B", "C"]
        assert sorted(reds(page)[1:]) == pytest.approx([80, 120, 200], abs=12)
        html = page.locator(".facesr-gallery").inner_html()
        assert not any(name in html.replace("is the truth", "") for name in ("PULSE", "RLS", "truth", "dB"))
        found = [red > 160 for red in reds(page)[1:]].index(True)
        pick = found if asked == 1 else (found + 1) % 3
        page.locator(".facesr-gallery button").nth(pick).focus()
        page.keyboard.press("Enter")
        answer = page.locator("output").inner_text()
        assert answer.startswith("Right: " if asked == 1 else "No, that was ")
        assert f"{'ABC'[found]} is the truth" in answer
        assert answer.endswith(f"1 of {asked}.")
        assert page.locator(".facesr-true b").inner_text() == f"{'ABC'[found]}: truth"
        assert page.locator(".facesr-gallery button").count() == 0
        page.keyboard.press("Enter")  # the focus is on "Next face"
        assert page.evaluate("model.get('face')") == asked
    assert page.evaluate("model.get('score')") == [1, 2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_playground_fits_and_is_legible(show: Callable[..., Any], play_widget, width: int, dark: bool) -> None:
    colours = "dark" if dark else "light"
    page = show(play_widget, viewport={"width": width, "height": 800}, color_scheme=colours, has_touch=True)
    page.locator(".facesr-gallery canvas").first.wait_for()
    require_fit(page, width)
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('.facesr-gallery')).gridTemplateColumns.split(' ')"
    )
    assert len(columns) == (2 if width == 390 else 4)
    page.locator(".facesr-thumb").nth(2).tap()
    assert page.evaluate("model.get('face')") == 2
    texts = ".facesr-card b", ".facesr-card span", ".facesr-choice label", ".facesr-choice legend", "output"
    require_legible(page, dark, *texts)


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_playground_plays_on_the_front_page(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("index.html", scheme=scheme, color_scheme=colours, viewport={"width": 390, "height": 844})
    scroll_to_widget(page)
    gallery = page.locator(".facesr-gallery")
    gallery.wait_for()
    still = gallery.screenshot()
    page.get_by_role("radio", name="Face 1").focus()
    page.keyboard.press("ArrowRight")
    assert gallery.screenshot() != still
    page.get_by_role("radio", name="guess the truth").check()
    page.get_by_role("button", name="B is the truth").click()
    assert "is the truth" in page.locator("output").inner_text()
    assert page.outside_requests == []
    assert page.console_errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.fixture(scope="module")
def camera_widget() -> CameraStages:
    board = ((torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2).float().expand(3, 64, 64)
    board = board * torch.tensor([1.0, 0.8, 0.4])[:, None, None]
    return CameraStages(board, alt="a board", title="A camera", caption="Five sliders")


def photograph(page: Any) -> np.ndarray:
    """The pixels of the photograph; the face is the other canvas."""
    data = page.locator("canvas").nth(1).evaluate("c => [...c.getContext('2d').getImageData(0, 0, 64, 64).data]")
    return np.array(data).reshape(64, 64, 4)[..., :3].astype(float)


def test_each_slider_of_the_camera_changes_the_photograph(
    show: Callable[..., Any], camera_widget: CameraStages
) -> None:
    page = show(camera_widget)
    page.wait_for_function(
        "document.querySelectorAll('canvas')[1]?.getContext('2d').getImageData(0, 0, 1, 1).data[3] === 255"
    )
    start, said = photograph(page), page.locator("output").inner_text()
    assert said == f"{camera_widget.told[0]} {camera_widget.psnr[0]:.1f} dB from the face."
    names = {"grey": "Colours", "blur": "Blur, σ", "side": "Made small to", "noise": "Noise, levels"}
    for k, (trait, name) in enumerate((names | {"jpeg": "JPEG, quality"}).items()):
        slider, says = page.get_by_role("slider", name=name), camera_widget.stages[k]["says"]
        last = len(says) - 1
        slider.focus()
        page.keyboard.press("End")
        assert page.evaluate(f"model.get('{trait}')") == last
        number = last * [54, 18, 6, 2, 1][k]
        assert page.locator("output").inner_text().startswith(camera_widget.told[number])
        assert slider.get_attribute("aria-valuetext") == says[last]
        assert np.abs(photograph(page) - start).mean() > 2
        page.keyboard.press("Home")
        assert np.array_equal(photograph(page), start)
    assert page.evaluate("model.saved") == 10
    page.evaluate("model.set('blur', 1)")
    assert "σ = 5.0" in page.locator("output").inner_text()
    page.evaluate("cleanup(); model.set('blur', 0)")
    assert "σ = 5.0" in page.locator("output").inner_text()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 720])
def test_camera_fits_and_is_legible(show: Callable[..., Any], camera_widget, width: int, dark: bool) -> None:
    page = show(camera_widget, viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
    page.locator("canvas").first.wait_for()
    require_fit(page, width)
    require_legible(page, dark, ".facesr-setting", ".facesr-reading", ".facesr-name", "output")


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_camera_takes_photographs_in_chapter_10(browser_page: Callable[..., Any], scheme: str, colours: str) -> None:
    page = browser_page("10-camera.html", scheme=scheme, color_scheme=colours)
    scroll_to_widget(page)
    figure = page.locator("figure").filter(has=page.get_by_role("slider", name="JPEG, quality"))
    figure.wait_for()
    for name in ("Blur, σ", "Made small to", "Noise, levels", "JPEG, quality"):
        still = figure.locator("canvas").nth(1).screenshot()
        figure.get_by_role("slider", name=name).focus()
        page.keyboard.press("End")
        assert figure.locator("canvas").nth(1).screenshot() != still
    assert "JPEG of quality 37" in figure.locator("output").inner_text()
    assert page.outside_requests == []
