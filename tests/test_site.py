"""The built pages, in a browser that reaches no other machine: complete over file:// as over http://."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from facesr_lib import publishing

pytestmark = pytest.mark.browser
PAGES = ["notation", "glossary", "run-times", "bibliography", *(path.stem for path in publishing.chapters())]


@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("page_name", PAGES)
def test_page_opens_without_outside_requests_or_errors(browser_page, page_name: str, scheme: str) -> None:
    page = browser_page(f"{page_name}.html", scheme=scheme)
    assert page.locator("h1").first.inner_text()
    assert page.outside_requests == []
    assert page.console_errors == []


@pytest.mark.parametrize("page_name", PAGES)
def test_formulas_are_typeset_and_widgets_drawn(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html")
    formulas = page.locator(".math").count()
    assert formulas == 0 or page.locator("mjx-container").count() >= formulas
    widgets = page.locator("script[type='application/vnd.jupyter.widget-view+json']").count()
    if widgets:
        page.evaluate("document.querySelector('script[type*=widget-view]').parentElement.scrollIntoView()")
        page.wait_for_function(f"document.querySelectorAll('.jupyter-widgets, .lm-Widget').length >= {widgets}")


def test_fixture_notices_what_it_is_there_to_notice(browser_page, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        "<script src='https://cdn.example.org/a.js'></script><script>undefinedFunction()</script>"
    )
    page = browser_page((tmp_path / "page.html").as_uri())
    assert page.outside_requests == ["https://cdn.example.org/a.js"]
    assert any("undefinedFunction" in error for error in page.console_errors)


def test_search_finds_a_word(browser_page) -> None:
    page = browser_page("search.html?q=bibliography", scheme="http")
    result = page.locator("#search-results li a", has_text=re.compile("bibliography", re.I)).first
    result.wait_for()
    assert page.console_errors == []


def test_search_excerpts_hold_no_raw_formulas(browser_page) -> None:
    page = browser_page("search.html?q=operator", scheme="http")
    page.locator("#search-results li p.context").nth(2).wait_for()
    assert "\\(" not in page.locator("#search-results").inner_text()


@pytest.mark.parametrize("chapter", publishing.chapters(), ids=lambda path: path.stem)
def test_colab_button_opens_this_chapter(browser_page, chapter: Path, repository_url: str) -> None:
    page = browser_page(f"{chapter.stem}.html")
    addresses = page.eval_on_selector_all("a[href*='colab']", "links => links.map(link => link.href)")
    path = repository_url.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{path}/blob/main/book/{chapter.name}" in addresses


@pytest.mark.parametrize("page_name", PAGES)
def test_dark_mode_is_dark_and_not_blank(browser_page, page_name: str) -> None:
    means = {}
    for scheme in ("light", "dark"):
        shot = browser_page(f"{page_name}.html", color_scheme=scheme).screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))
        assert pixels.std() > 3
        means[scheme] = pixels.mean()
    assert means["dark"] < 100 < 180 < means["light"]


@pytest.mark.parametrize("page_name", PAGES)
def test_every_figure_says_what_it_shows(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html")
    figures = page.eval_on_selector_all(
        "article img", "images => images.map(i => [i.getAttribute('src').slice(0, 80), i.getAttribute('alt') || ''])"
    )
    # Sphinx writes the file's own name where the author wrote nothing.
    silent = [source for source, alt in figures if not alt.strip() or re.fullmatch(r"\S+\.(png|svg|jpe?g|webp)", alt)]
    assert silent == []


BROKEN_OR_WIDE = """() => {
  document.querySelectorAll("details").forEach(folded => { folded.open = true; });
  const found = [];
  for (const table of document.querySelectorAll(".cell_output table")) {
    if (table.offsetWidth > table.parentElement.clientWidth + 1) found.push("too wide: " + table.innerText);
    const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (range.getClientRects().length > 1) found.push("broken: " + word[0]);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("chapter", publishing.chapters(), ids=lambda path: path.stem)
def test_tables_fit_the_page_and_keep_words_whole(browser_page, chapter: Path) -> None:
    page = browser_page(f"{chapter.stem}.html", viewport={"width": 1200, "height": 900})
    assert page.evaluate(BROKEN_OR_WIDE) == []


def test_tables_have_no_light_frame_on_a_dark_page(browser_page) -> None:
    page = browser_page("ledger.html", color_scheme="dark")
    frames = "frames => [...new Set(frames.map(frame => getComputedStyle(frame).backgroundColor))]"
    assert page.eval_on_selector_all(".cell_output .output:has(> table)", frames) == ["rgba(0, 0, 0, 0)"]


CUT_OFF = """async () => {
  await window.MathJax?.startup?.promise;
  const boxes = [...document.querySelectorAll("article :is(div.math, div.math > mjx-container, .cell_input pre)")];
  const cut = box => !box.closest("details") && box.scrollWidth > box.clientWidth + 1;
  return boxes.filter(cut).map(box => box.innerText);
}"""


@pytest.mark.parametrize("page_name", PAGES)
def test_equations_and_code_are_not_cut_off(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html", viewport={"width": 1280, "height": 900})
    assert page.evaluate(CUT_OFF) == []
    assert page.locator("article div.math").count() == page.locator("article div.math > mjx-container").count()
    wrapping = "boxes => boxes.map(box => getComputedStyle(box).whiteSpace).filter(style => style !== 'pre')"
    assert page.eval_on_selector_all("article .cell_input pre", wrapping) == []


@pytest.mark.parametrize("page_name", PAGES)
def test_page_is_no_wider_than_a_phone(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html", viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


CONTRAST = """(selector) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = luminance(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(selector)].map((node) => {
    const [low, high] = [ground, luminance(getComputedStyle(node).color)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_captions_are_legible(browser_page, colours: str) -> None:
    page = browser_page("01-problem.html", color_scheme=colours)
    contrasts = page.evaluate(CONTRAST, "article figcaption .caption-text, article .caption-text")
    assert len(contrasts) >= 2
    assert min(contrasts) >= 4.5


def test_figure_opens_at_full_size_by_keyboard(browser_page) -> None:
    page = browser_page("01-problem.html", viewport={"width": 390, "height": 844})
    figure = page.locator("article .cell_output img").first
    figure.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog.full-size img")
    assert large.bounding_box()["width"] > 1.5 * figure.bounding_box()["width"]
    assert large.get_attribute("alt") == figure.get_attribute("alt")
    page.keyboard.press("Escape")
    assert not page.locator("dialog.full-size").is_visible()
    assert figure.evaluate("node => node === document.activeElement")
    figure.click()
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog.full-size").is_visible()


def test_copy_buttons_have_names(browser_page) -> None:
    page = browser_page("01-problem.html")
    assert page.locator("button.copybtn").count() >= 3
    assert (
        page.locator("button.copybtn").count() == page.get_by_role("button", name="Copy", include_hidden=True).count()
    )


def test_next_page_of_the_front_page_is_chapter_1(browser_page) -> None:
    page = browser_page("index.html")
    for link in (page.locator("a.right-next"), page.get_by_role("link", name="Start with chapter 1")):
        assert link.get_attribute("href").endswith("01-problem.html")


@pytest.mark.parametrize("page_name", ["index", "01-problem", "glossary"])
def test_pages_say_what_they_are_to_those_who_link_to_them(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html")
    address = page.locator("link[rel=canonical]").get_attribute("href")
    assert address == f"https://facesr-book.github.io/facesr-book/{page_name}.html"
    found = {name: page.locator(f"meta[property='og:{name}']").get_attribute("content") for name in ("url", "title")}
    assert found["url"] == address
    assert found["title"]
    said = page.locator("meta[name=description]").get_attribute("content")
    assert 20 < len(said) <= 200
    assert "<" not in said


def test_figures_that_move_have_a_still_for_readers_without_scripts(browser_page) -> None:
    page = browser_page("index.html", java_script_enabled=False)
    still = page.locator("noscript img")
    assert still.count() == 1
    assert still.bounding_box()["width"] > 200
    assert "RLS+" in page.locator("noscript p").inner_text()


def test_scripts_come_only_where_and_when_they_are_used(browser_page) -> None:
    scripts = "performance.getEntriesByType('resource').map(entry => entry.name)"
    plain = browser_page("run-times.html", scheme="http").evaluate(scripts)
    assert not any("mathjax" in name or "embed-amd" in name for name in plain)
    page = browser_page("05-gaussianising.html", scheme="http")
    assert not any("embed-amd" in name for name in page.evaluate(scripts))
    page.evaluate("document.querySelector('script[type*=widget-view]').parentElement.scrollIntoView()")
    page.locator("figure.facesr").first.wait_for()
    assert any("embed-amd" in name for name in page.evaluate(scripts))


ICONS = """[...document.querySelectorAll("*")].flatMap(element => ["::before", "::after"].map(part => {
    const style = getComputedStyle(element, part);
    return [style.fontFamily + " " + style.fontWeight, style.content.replaceAll('"', "")];
})).filter(([font, content]) => font.includes("Font Awesome") && !["none", "normal", ""].includes(content))"""


@pytest.mark.parametrize("page_name", PAGES)
def test_icons_are_in_the_fonts_that_the_page_loads(browser_page, site: Path, page_name: str) -> None:
    fonts = {path.stem: TTFont(path).getBestCmap() for path in site.glob("_static/vendor/fontawesome/**/fa-*.woff2")}
    shown = browser_page(f"{page_name}.html").evaluate(ICONS)
    assert len(shown) > 10
    for font, icon in shown:
        name = "fa-brands-400" if "Brands" in font else "fa-solid-900" if font.endswith("900") else "fa-regular-400"
        assert ord(icon) in fonts[name], f"{icon!r} of {font}"


@pytest.mark.parametrize("page_name", PAGES)
def test_page_weighs_at_most_a_megabyte_and_a_half(browser_page, site: Path, page_name: str) -> None:
    page = browser_page(f"{page_name}.html", scheme="http")
    names = page.evaluate("[location.href, ...performance.getEntriesByType('resource').map(entry => entry.name)]")
    paths = [site / urlsplit(name).path.lstrip("/") for name in names]
    text = [path for path in paths if path.suffix in (".html", ".css", ".js")]
    without = re.sub(rb"data:image/[^\"]+", b"", text[0].read_bytes())  # and without the pictures that widgets hold
    without = re.sub(rb'"data": ?"[A-Za-z0-9+/=]{200,}"', b"", without)
    weight = len(gzip.compress(without)) + sum(len(gzip.compress(path.read_bytes())) for path in text[1:])
    weight += sum(path.stat().st_size for path in paths if path.suffix == ".woff2")
    assert weight <= 1_500_000


def test_run_times_page_holds_the_tables(site: Path) -> None:
    page = (site / "run-times.html").read_text()
    assert "<!--" not in page.split("<article", 1)[1].split("</article>")[0]
    assert "torch" in page
    assert "plain loop" in page
    for chapter in publishing.chapters():
        assert f'href="{chapter.stem}.html"' in page.split("<article", 1)[1]


@pytest.mark.parametrize("chapter", publishing.chapters(), ids=lambda path: path.stem)
def test_chapter_says_how_long_it_ran(browser_page, chapter: Path) -> None:
    page = browser_page(f"{chapter.stem}.html")
    assert re.search(r"Run time: \d+ seconds on .+ with profile=smoke", page.locator("article").inner_text())


def test_citations_resolve(browser_page) -> None:
    page = browser_page("bibliography.html")
    assert page.get_by_text("PULSE: Self-Supervised Photo Upsampling").count() >= 1
