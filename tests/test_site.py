"""The built pages, in a browser that reaches no other machine: complete over file:// as over http://."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facesr_lib import publishing

pytestmark = pytest.mark.browser
PAGES = ["index", "notation", "glossary", "run-times", "bibliography", *(path.stem for path in publishing.chapters())]


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
  const boxes = [...document.querySelectorAll("article :is(div.math, div.math > mjx-container, pre)")];
  return boxes.filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.innerText);
}"""


@pytest.mark.parametrize("page_name", PAGES)
def test_equations_and_code_are_not_cut_off(browser_page, page_name: str) -> None:
    page = browser_page(f"{page_name}.html", viewport={"width": 1200, "height": 900})
    assert page.evaluate(CUT_OFF) == []
    assert page.locator("article div.math").count() == page.locator("article div.math > mjx-container").count()


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
