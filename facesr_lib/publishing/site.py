"""Executed chapters built into pages that need nothing from outside; Jupyter Book only renders."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin

from fontTools import subset
from PIL import Image

from facesr_lib.files import replacing
from facesr_lib.publishing import scripts
from facesr_lib.publishing.execute import BookError, Run, alone, checked, execute, machine, repository, surroundings
from facesr_lib.tables import Table

RUN_TIME = "<!-- run time -->"  # the line of a chapter that its own run time replaces


def build(profile: str = "read", jobs: int | None = None, out: Path | None = None) -> Path:
    """Execute what has changed and build the site; warnings of the page builder are errors.

    Parameters
    ----------
    profile, jobs
        As in `execute`.
    out : Path, optional
        Folder for ``source/`` and ``_build/html/``, which is returned, by default the repository (``_build/html/``); it
        holds no ``_build`` that this function did not make.

    A `BookError` says that a chapter failed or the pages could not be built.
    """
    jobs, root = checked(profile, jobs), repository()
    out = (out or root).expanduser().absolute()
    source, ours = out / "_build" / "source", out / "_build" / ".facesr-book"
    if out != root and source.parent.exists() and not ours.exists():
        raise FileExistsError(f"{source.parent} was not made by `facesr book`: choose another folder.")
    scripts.fetch(root / "_build" / "offline")
    runs = execute(profile=profile, jobs=jobs)

    source.parent.mkdir(parents=True, exist_ok=True)
    ours.touch()
    with alone(source.parent):
        return _build(runs, profile, out)


def _build(runs: Sequence[Run], profile: str, out: Path) -> Path:
    root, source = repository(), out / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source, ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for run in runs:
        _render_chapter(run.notebook, source / run.chapter.name, profile)
    page = source / "run-times.md"
    text = page.read_text(encoding="utf-8")
    for marker, table in _run_times(runs, profile).items():
        text = text.replace(marker, str(table))
    page.write_text(text, encoding="utf-8")
    scripts.unpack(root / "_build" / "offline", source / "_assets" / "offline")

    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source), "-q"]
    command += ["-W", "--keep-going", "--config", str(root / "_config.yml"), "--path-output", str(out)]
    if subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:  # warnings and errors go to stderr
        raise BookError("Jupyter Book could not build the pages: see its messages above.")
    site = out / "_build" / "html"
    for page in site.glob("*.html"):
        page.write_text(_finished(page.read_text(encoding="utf-8")), encoding="utf-8")
    _keep_used_icons(site)
    return site


def _finished(page: str) -> str:
    """Complete a built page: what search engines and messengers show of it, and no script that it does not use.

    Canonical address and title are the page's own; the description is its first paragraph.
    """
    # The theme for Python 3.10 asks for its icon font ahead of time, across origins.
    page = re.sub('<link rel="preload" as="font"[^>]*>', "", page)
    # Icons as scripts, half a megabyte: the theme's style sheet has the same ones as a font.
    page = re.sub(
        r'<script[^>]*fontawesome\.js[^>]*></script>|<link[^>]*as="script"[^>]*fontawesome\.js[^>]*>', "", page
    )
    page = _with_stills(page)
    if 'class="math' not in page:
        page = re.sub(r"<script[^>]*/mathjax/[^>]*></script>", "", page)
    address = re.search(r'<link rel="canonical" href="([^"]+)"', page)
    article = re.search(r"<article.*?</h1>.*?<p>(.*?)</p>", page, re.S)
    title = re.search(r"<title>(.*?)</title>", page, re.S)
    if not (address and article and title) or 'property="og:url"' in page:
        return page  # the search page has no text of its own; one that was not rendered anew is complete
    words = html.unescape(re.sub(r"<[^>]+>|\\[()]", "", article[1])).split()
    text = textwrap.shorten(" ".join(words), 200, placeholder=" …")
    properties = {
        "og:type": "article",
        "og:title": html.unescape(title[1]).strip(),
        "og:description": text,
        "og:url": address[1],
        "og:image": urljoin(address[1], "_static/result.png"),
    }
    named = [("name", "description", text), ("name", "twitter:card", "summary_large_image")]
    tags = [*named, *(("property", name, content) for name, content in properties.items())]
    head = "".join(f'<meta {kind}="{name}" content="{html.escape(content)}" />\n' for kind, name, content in tags)
    return page.replace("</head>", f"{head}</head>", 1)


def _keep_used_icons(site: Path) -> None:
    """Leave of the theme's icon fonts, 300 KB, the glyphs that a page, a script of the theme or a style shows."""
    theme = [path for path in site.glob("_static/scripts/*.js") if path.name != "fontawesome.js"]  # which no page loads
    shown = "".join(path.read_text("utf-8") for path in [*site.glob("*.html"), *theme])
    used, glyphs = set(re.findall(r"fa-[a-z0-9-]+", shown)), []
    for style in site.glob("_static/**/*.css"):
        for selectors, rules in re.findall(r"([^{}]*)\{([^{}]*)\}", style.read_text("utf-8")):
            icons = re.findall(r"\.(fa-[a-z0-9-]+)::?before", selectors)
            if not icons or used.intersection(icons):
                glyphs += re.findall(r'"\\([0-9a-f]{2,5})"', rules)
                glyphs += [f"{ord(glyph):x}" for glyph in re.findall("[\ue000-\uf8ff]", rules)]
    for font in site.glob("_static/vendor/fontawesome/**/fa-*.woff2"):
        whole = str(font.with_suffix(".ttf"))  # the same glyphs, untouched by an earlier build
        subset.main([whole, f"--unicodes={','.join(glyphs)}", "--flavor=woff2", f"--output-file={font}"])


def _render_chapter(executed: Path, target: Path, profile: str) -> None:
    """Write a chapter as the page shows it: with its run time, without papermill's parameters and Colab's cell."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["cells"] = [c for c in notebook["cells"] if "injected-parameters" not in c["metadata"].get("tags", ())]
    here = machine()
    on = f"{here['Cores']} processor cores" if here["GPU"] == "none" else here["GPU"]
    seconds = f"{notebook['metadata']['papermill']['duration']:.0f}"
    sentence = (
        f"*Run time: {seconds} seconds on {on} with* `profile={profile}` *({{doc}}`run-times`). "
        "The profile* `paper` *is meant for a GPU.*"
    )
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).replace(RUN_TIME, sentence)
        if 'if "google.colab" in sys.modules' in cell["source"]:
            cell["metadata"].setdefault("tags", []).append("remove-cell")  # for Colab alone
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")
    shutil.copystat(executed, target)  # an unchanged page is not rendered again


def _run_times(runs: Sequence[Run], profile: str) -> dict[str, Table]:
    """Tabulate what ``book/run-times.md`` leaves open: marker → seconds per chapter, the benchmark, the machine."""
    chapters = Table(("Chapter", "Profile", "Seconds", "Executed"))
    for run in runs:
        times = json.loads(run.notebook.read_text(encoding="utf-8"))["metadata"]["papermill"]
        row = [f"[]({run.chapter.name})", profile, f"{times['duration']:.0f}", times["start_time"][:10]]
        chapters.rows.append(row)
    described = Table(("What", "This build"), machine().items())
    return {"<!-- chapters -->": chapters, "<!-- benchmark -->": _benchmark(), "<!-- machine -->": described}


def _benchmark() -> Table:
    """Run the quick benchmark, once per state of the library and machine."""
    from facesr_lib.benchmark import search

    kept, key = repository() / "_build" / "benchmark.json", surroundings({"profile": "benchmark"})
    if not kept.exists() or json.loads(kept.read_text())["key"] != key:
        print("benchmark: running", flush=True)
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps({"key": key, "rows": search.run(quick=True)}))
    return Table.of(json.loads(kept.read_text())["rows"])


def _with_stills(page: str) -> str:
    """Give readers without scripts a first picture of each figure that moves, and what it shows in words."""
    state = re.search(r'<script type="application/vnd.jupyter.widget-state\+json">(.*?)</script>', page, re.S)
    models = json.loads(state[1])["state"] if state else {}

    def still(view: re.Match[str]) -> str:
        model = models.get(json.loads(view[1])["model_id"], {})
        traits = model.get("state", {})
        if not traits.get("alt"):
            return view[0]
        held = {buffer["path"][0]: base64.b64decode(buffer["data"]) for buffer in model.get("buffers", ())}
        alt, shown = html.escape(traits["alt"]), ""
        if picture := held.get("sheet") or held.get("after"):
            file = io.BytesIO()
            sheet = Image.open(io.BytesIO(picture)).convert("RGB")
            rows = min(sheet.height, 2 * traits.get("resolution", sheet.height))
            sheet.crop((0, 0, sheet.width, rows)).save(file, "WEBP", quality=80)
            source = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
            shown = f'<img src="{source}" alt="{alt}" width="{sheet.width}" height="{rows}">'
        return f"{view[0]}<noscript>{shown}<p>{alt}</p></noscript>"

    view = r'<script type="application/vnd.jupyter.widget-view\+json">([^<]*)</script>(?!<noscript>)'
    return re.sub(view, still, page)
