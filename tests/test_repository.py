"""What holds for the repository as a whole: one address, floors, clean notebooks, licences, nobody's machine."""

from __future__ import annotations

import ast
import graphlib
import io
import itertools
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import facesr_lib

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLOORS = [set(re.findall(r"``(\w+)``", line)) for line in (facesr_lib.__doc__ or "").splitlines() if line[:2] == "- "]
FLOOR = {room: height for height, rooms in enumerate(reversed(FLOORS)) for room in rooms}
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook: Path, kind: str | None = None) -> list[dict]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def texts() -> list[tuple[str, str]]:
    """List every text file that is, or would be, committed, with what it says."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout (git ls-files failed): which files are committed is unknown")
    found = []
    for name in run.stdout.splitlines():
        try:
            found.append((name, (ROOT / name).read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # an image or weights; a file deleted but not yet committed
    return found


# One repository setting


def test_book_settings_follow_the_repository_setting(repository_url: str) -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["repository"] == {"url": repository_url, "path_to_book": "book", "branch": "main"}
    owner, name = repository_url.removeprefix("https://github.com/").split("/")
    assert config["html"]["baseurl"] == f"https://{owner}.github.io/{name}/"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == repository_url


@every_notebook
def test_first_code_cell_installs_the_library_in_colab(notebook: Path, repository_url: str) -> None:
    assert source(cells(notebook, "code")[0]).rstrip() == (
        f'import sys\n\nif "google.colab" in sys.modules:\n    %pip install -q "facesr_lib @ git+{repository_url}"'
    )


def test_links_to_the_repository_follow_the_setting(repository_url: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"git clone {repository_url}" in readme
    path = repository_url.removeprefix("https://github.com/")
    for name, text in texts():
        if name.endswith((".md", ".ipynb")):
            for colab in re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)", text):
                assert colab == path, f"{name} opens {colab} in Colab"
            for clone in re.findall(r"git clone (\S+)", text):
                assert clone.removesuffix(".git").rstrip("`") == repository_url, f"{name} clones {clone}"


# Files that speak of the project alone


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    registry = re.compile(r"pypi\.(org|python)|pythonhosted\.org|npmjs\.(org|com)|conda\.anaconda|index-url|find-links")
    machine = re.compile(r"(?<![\w.~}>:/-])/(home|root|Users|work|tmp|opt)/\w|[A-Z]:\\Users")
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if registry.search(line) or machine.search(line)
    ]
    found = [entry for entry in found if not entry.startswith("tests/test_repository.py")]
    assert found == []


def test_constraints_are_names_and_versions_and_cover_what_is_asked_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[\w.!]+( ; [^@#/]+)?", line)] == []
    pinned = {line.partition("==")[0] for line in lines}
    project = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'"([A-Za-z0-9._-]+)(?:\[[\w,]+\])?[><=]+[^"]*"', project.split("[project.scripts]")[0])
    asked = {name.lower().replace("_", "-") for name in asked} - {"python"}
    assert len(asked) > 15
    assert asked - pinned == set()


def test_what_the_library_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[\[><=; ]", name)[0].lower().replace("_", "-") for name in asked}
    called = {"PIL": "pillow", "yaml": "pyyaml", "dlib": "dlib-bin"}  # where the package has another name
    imported = set()
    for path in (ROOT / "facesr_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"facesr_lib", "tomllib"}
    assert {called.get(name, name).lower().replace("_", "-") for name in foreign} - declared == set()


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name, text in texts():
        if name.endswith((".md", ".yml", "run")):
            named = set(re.findall(r"`make ([a-z]+)|^\s+make ([a-z]+)|run: make ([a-z]+)", text, re.M))
            missing = {word for words in named for word in words if word} - targets
            assert not missing, f"{name} speaks of make {', '.join(missing)}"


def test_nothing_is_published_without_what_the_chapters_read() -> None:
    """The held-out faces, NIQE's features, and what they ask for by name that does not come with the library."""
    from facesr_lib import assets

    asked = {name for path in NOTEBOOKS for name in re.findall(r'assets\.path\(\\"([\w-]+)', path.read_text("utf-8"))}
    needed = {"faces-test", "niqe"} | {name for name in asked if assets.entry(name).files}
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["publish"]["steps"]]
    [fetched] = [i for i, run in enumerate(steps) if "assets fetch faces-test" in run]
    [built] = [i for i, run in enumerate(steps) if "make book" in run]
    assert fetched < built
    assert "||" not in steps[fetched]
    assert needed <= set(steps[fetched].split())
    assert "solvay-1927" in needed


@pytest.mark.parametrize(
    ("name", "says"),
    [("LICENSE", "MIT License"), ("LICENSE-text", "https://creativecommons.org/licenses/by/4.0/legalcode")],
)
def test_licence_is_there(name: str, says: str) -> None:
    assert says in (ROOT / name).read_text()


# Notebooks


def test_every_notebook_is_in_the_table_of_contents() -> None:
    from facesr_lib import publishing

    assert sorted(publishing.chapters()) == NOTEBOOKS
    assert len(NOTEBOOKS) >= 3


@every_notebook
def test_notebook_is_committed_without_outputs(notebook: Path) -> None:
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells(notebook, "code"))
    assert "widgets" not in json.loads(notebook.read_text(encoding="utf-8"))["metadata"]


@every_notebook
def test_second_code_cell_holds_the_parameters(notebook: Path) -> None:
    tagged = [i for i, c in enumerate(cells(notebook, "code")) if "parameters" in c["metadata"].get("tags", ())]
    assert tagged == [1]
    names = {t.id: n.value.value for n in ast.parse(source(cells(notebook, "code")[1])).body for t in n.targets}
    assert names == {"profile": "read", "device": "auto", "seed": 0}


FOLDED = {"hide-input", "hide-cell", "remove-cell", "remove-input"}


def unreadable(notebook: list[dict]) -> list[str]:
    """Say what in a chapter's cells is too long to read, or may be false on another machine."""
    found = []
    markdown = [cell for cell in notebook if cell["cell_type"] == "markdown"]
    code = {"visible": [], "folded": [], "one-screen": []}
    for cell in (cell for cell in notebook if cell["cell_type"] == "code"):
        tags = set(cell["metadata"].get("tags", ()))
        code["folded" if tags & FOLDED else "one-screen" if "one-screen" in tags else "visible"].append(cell)
    for kind, lines, width in (("visible", 12, 88), ("one-screen", 40, 88), ("folded", 30, 110)):
        for cell in code[kind]:
            written = source(cell).splitlines()
            about = f"a {kind} cell ({written[0] if written else 'empty'})"
            if len(written) > lines:
                found.append(f"{about} has {len(written)} lines, more than {lines}")
            if (longest := max(map(len, written), default=0)) > width:
                found.append(f"{about} has a line of {longest} characters, more than {width}")
    if (seen := len(code["visible"]) + len(code["one-screen"])) > 40:
        found.append(f"{seen} visible cells, more than 40")
    if len(code["one-screen"]) > 1:
        found.append("more than one method on one screen")
    # Whose faces are shown is the data's to say: `Chapter.origin`, `Chapter.finding`.
    return found + [
        f"typed, not told by the data: {source(c)[:60]!r}" for c in markdown if "held-out" in source(c).lower()
    ]


@every_notebook
def test_notebook_is_short_enough_to_read(notebook: Path) -> None:
    if any("chapter.open(" in source(cell) for cell in cells(notebook, "code")):
        assert unreadable(cells(notebook)) == []
        return
    lengths = [len(source(cell).splitlines()) for cell in cells(notebook, "code")]  # pages of the first kind
    assert len(cells(notebook)) <= 30
    assert max(lengths) <= 25
    assert sum(lengths) <= 200


def test_what_is_hard_to_read_is_noticed() -> None:
    def cell(source: str, *tags: str, kind: str = "code") -> dict:
        return {"cell_type": kind, "metadata": {"tags": list(tags)}, "source": source}

    short, screen = "x = 1\n" * 12, "x = 1\n" * 40
    assert (
        unreadable([cell(short), cell(screen, "one-screen"), cell("x = 1\n" * 30, "hide-input"), cell("#" * 88)]) == []
    )
    for wrong, said in (
        ([cell(short + "x")], "has 13 lines"),
        ([cell("#" * 89)], "has a line of 89"),
        ([cell(screen + "x", "one-screen")], "has 41 lines"),
        ([cell(screen, "one-screen")] * 2, "more than one method"),
        ([cell("x = 1\n" * 31, "remove-cell")], "has 31 lines"),
        ([cell("#" * 111, "hide-cell")], "has a line of 111"),
        ([cell("")] * 41, "41 visible cells"),
        ([cell("These are Held-out faces.", kind="markdown")], "typed"),
    ):
        [only] = unreadable(wrong)
        assert said in only


CHAPTERS = [path for path in NOTEBOOKS if path.name[:2].isdigit()]


def lacking(notebook: list[dict]) -> list[str]:
    """Say what is missing of a chapter's form, from what is said at its head to its exercises."""
    at = [i for i, cell in enumerate(notebook) if cell["cell_type"] == "markdown"]
    head, text = source(notebook[at[0]]), "\n\n".join(source(notebook[i]) for i in at)
    first = [cell for cell in notebook[: at[1]] if cell["cell_type"] == "code"]
    code = [cell for cell in notebook if cell["cell_type"] == "code"]
    prompts = [cell["metadata"].get("mystnb", {}).get("code_prompt_show") for cell in code]
    screens = [i for i, cell in enumerate(code) if "one-screen" in cell["metadata"].get("tags", ())]
    short, _, rest = text.partition("## In short\n")[2].partition("\n## ")
    wanted = {
        "what one will be able to do": "After this chapter you can " in head,
        "what one needs": "\nYou need: " in head,
        "the reading time": re.search(r"^Reading time: \d+ minutes\.\n\n<!-- run time -->$", head, re.M),
        "a result at the head": any(re.search(r"alt\b", source(c) + json.dumps(c["metadata"])) for c in first),
        "a folded set-up": "Set-up" in prompts,
        "one method on one screen": len(screens) == 1,
        "its comparison with the library": any("assert" in source(c) for i in screens for c in code[i : i + 4]),
        "the paper against ours": "\n## Paper against ours\n" in text,
        "a summary of five lines": short.count("\n- ") in (4, 5),  # one may be a finding
        "three to five exercises": 3 <= len(re.findall(r"^(?:\*\*\d\.\*\*|\d\.) \*", rest, re.M)) <= 5,
        "solutions": "Solutions" in prompts,
    }
    return [what for what, is_there in wanted.items() if not is_there]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_all_of_its_parts(chapter: Path) -> None:
    assert lacking(cells(chapter)) == []


def test_parts_that_are_missing_are_noticed() -> None:
    whole = cells(CHAPTERS[-1])
    for part, missing in (
        ("After this chapter", "what one will be able to do"),
        ("You need: ", "what one needs"),
        ("<!-- run time -->", "the reading time"),
        ("alt=", "a result at the head"),
        ("assert", "its comparison with the library"),
        ("## Paper against ours", "the paper against ours"),
        ("## In short", "a summary of five lines"),
        ("**3.** *", "three to five exercises"),
    ):
        without = [cell | {"source": source(cell).replace(part, "")} for cell in whole]
        assert missing in lacking(without), part
    for folded, missing in (("Set-up", "a folded set-up"), ("Solutions", "solutions")):
        assert missing in lacking(json.loads(json.dumps(whole).replace(f'"{folded}"', '"Code"')))
    assert "one method on one screen" in lacking(json.loads(json.dumps(whole).replace('"one-screen"', '"long"')))


# Size

LINES_OF_A_FILE, LINES_OF_CODE = 400, 10_600
LIBRARY = sorted((ROOT / "facesr_lib").rglob("*.py"))
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(text: str) -> int:
    """Count the lines that hold code: not blank, no comment, no docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = [(token.start[0], token.end[0]) for token in tokens if token.type not in NO_CODE]
    texts = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    texts = [node for node in texts if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    held = {line for first, last in spans for line in range(first, last + 1)}
    return len(held - {line for node in texts for line in range(node.lineno, node.end_lineno + 1)})


def test_no_file_of_the_library_needs_a_table_of_contents() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY}
    assert {path: length for path, length in lengths.items() if length > LINES_OF_A_FILE} == {}


def test_the_library_is_small() -> None:
    lines = sum(lines_of_code(path.read_text(encoding="utf-8")) for path in LIBRARY)
    assert lines <= LINES_OF_CODE, f"{lines} lines of code: what else is done twice, or by a dependency already?"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ("# a comment\n\n\n", 0),
        ('"""What it is."""\n\nx = 1  # a comment\n', 1),
        ('def f():\n    """What\n\n    it does.\n    """\n    return (\n        # why\n        1\n    )\n', 4),
        ('x = 1\n"""What x is,\nand why."""\n', 1),
        ('x = """a\n\nb"""\n', 3),  # a text that is used is code
    ],
)
def test_lines_of_code_are_counted_as_they_are_read(text: str, lines: int) -> None:
    assert lines_of_code(text) == lines


# Floors


def imported_rooms(path: Path) -> set[str]:
    """List the rooms of facesr_lib that a file imports anywhere, in a function too."""
    package = ["facesr_lib", *path.relative_to(ROOT / "facesr_lib").parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    rooms = {name.split(".")[1] for name in names if name.startswith("facesr_lib.")}
    return {room for room in rooms if not room.startswith("__version")}


def test_imports_point_downwards() -> None:
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "facesr_lib").rglob("*.py")):
        room = path.relative_to(ROOT / "facesr_lib").parts[0].removesuffix(".py")
        imported = imported_rooms(path)
        if room == "__init__":
            assert not imported, "the package itself imports nothing: its rooms load when they are asked for"
            continue
        assert room in FLOOR, f"{path.name}: on which floor does {room} stand?"
        for other in imported:
            assert FLOOR[other] <= FLOOR[room], f"{path.name} (floor {FLOOR[room]}) imports {other} ({FLOOR[other]})"
        graph.setdefault(room, set()).update(imported - {room})
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError between rooms of one floor


def test_no_code_knows_one_method_from_another() -> None:
    """What methods differ in are their properties: nothing is compared with a method's name."""
    from facesr_lib.restoration import METHODS

    for path in sorted((ROOT / "facesr_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Compare, ast.MatchValue)):
                named = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & METHODS.keys()
                assert not named, f"{path.name}:{node.lineno} asks for {', '.join(named)}"


def test_the_guide_shows_the_floors_that_are_tested() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {room: int(height) for height, rooms in rows for room in re.findall(r"\w+", rooms)}
    assert shown | {"__main__": FLOOR["cli"]} == FLOOR


@pytest.mark.parametrize(
    ("line", "rooms"),
    [
        ("import facesr_lib.search.engine", {"search"}),
        ("from facesr_lib import images, prior", {"images", "prior"}),
        ("from facesr_lib.networks.stylegan2 import load", {"networks"}),
        ("def late():\n    from ..search import engine", {"search"}),
        ("from . import latent", {"losses"}),
        ("import torch", set()),
    ],
)
def test_import_check_sees_each_form(line: str, rooms: set[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "facesr_lib" / "losses" / "some.py"
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert imported_rooms(path) == rooms
