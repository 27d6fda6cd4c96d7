"""Every chapter runs from its first cell to its last with profile=smoke."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facesr_lib import assets, cli, publishing

EXECUTE = sys.modules["facesr_lib.publishing.execute"]  # the function of this name hides it


@pytest.mark.notebook
@pytest.mark.parametrize("chapter", publishing.chapters(), ids=lambda path: path.stem)
def test_chapter_runs(chapter: Path, chapter_errors: dict[str, str | None]) -> None:
    if error := chapter_errors[chapter.stem]:
        pytest.fail(error, pytrace=False)


@pytest.mark.notebook
@pytest.mark.parametrize("chapter", publishing.chapters(), ids=lambda path: path.stem)
def test_chapter_runs_without_the_faces(chapter: Path, bare_chapter_errors: dict[str, str | None]) -> None:
    if error := bare_chapter_errors[chapter.stem]:
        pytest.fail(error, pytrace=False)


@pytest.fixture
def write_chapter(tmp_path: Path):
    """Write a notebook of the given code cells; the first is the parameters cell."""

    def write(*sources: str, tags: tuple[str, ...] = ("parameters",)) -> Path:
        cells = [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{number}",
                "metadata": {"tags": list(tags) if number == 0 else []},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(sources)
        ]
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (tmp_path / "chapter.ipynb").write_text(json.dumps(notebook))
        return tmp_path / "chapter.ipynb"

    return write


def test_executed_chapter_is_kept_until_its_source_changes(write_chapter, tmp_path, capfd) -> None:
    chapter = write_chapter("profile = 'read'", "import time\nprint(profile, time.time_ns())")
    [first] = publishing.execute([chapter], "smoke", 1, tmp_path / "out")
    printed = first.notebook.read_text()
    assert "smoke" in printed
    [second] = publishing.execute([chapter], "smoke", 1, tmp_path / "out")
    assert second.notebook.read_text() == printed
    assert "unchanged" in capfd.readouterr().out
    write_chapter("profile = 'read'", "print('other source')")
    [third] = publishing.execute([chapter], "smoke", 1, tmp_path / "out")
    assert "other source" in third.notebook.read_text()


def test_findings_that_do_not_hold_are_left_out_and_listed(write_chapter, tmp_path, capfd) -> None:
    open_it = "import torch\nfrom facesr_lib.chapter import SAMPLES, Chapter"
    here = "here = Chapter('read', 0, None, torch.zeros(1), SAMPLES)"
    chapter = write_chapter(
        "profile = 'read'",
        f"{open_it}\n{here}",
        "here.finding('It gains {x} dB.', False, x=3)",
        "here.finding('So it is.', 1)",
    )
    for heading in ("done after", "unchanged"):
        [run] = publishing.execute([chapter], "smoke", 1, tmp_path / "out")
        assert run.left_out == ("It gains 3 dB.",)
        printed = capfd.readouterr().out
        assert heading in printed
        assert ("left out, for it does not hold here: It gains 3 dB." in printed) == (heading != "unchanged")
        cells = json.loads(run.notebook.read_text())["cells"]
        shown = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])
        assert "So it is." in shown
        assert "It gains" not in shown


def test_a_chapter_keeps_to_the_threads_it_is_given(write_chapter, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    look = "import os\nassert [os.environ[f'{name}_NUM_THREADS'] for name in ('OMP', 'MKL')] == ['1', '1']"
    publishing.execute([write_chapter("profile = 'read'", look)], "smoke", 1, tmp_path / "out")


def test_failing_chapter_names_cell_source_and_traceback_and_is_not_kept(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'", "1 + 1", "shape = (3, 4)\nraise ArithmeticError(shape)")
    with pytest.raises(publishing.BookError, match="chapter failed") as failure:
        publishing.execute([chapter], "smoke", 1, tmp_path / "out")
    [run] = failure.value.runs
    assert run.error is not None
    assert "chapter.ipynb, cell 2:" in run.error
    assert "shape = (3, 4)\nraise" in run.error
    assert "ArithmeticError: (3, 4)" in run.error
    assert not (tmp_path / "out" / "chapter.ipynb").exists()


def test_killed_kernel_is_a_failure(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(publishing.BookError) as failure:
        publishing.execute([chapter], "smoke", 1, tmp_path / "out")
    [run] = failure.value.runs
    assert run.error is not None
    assert "died" in run.error.lower()


def test_a_result_that_is_cut_short_is_a_failure(write_chapter, tmp_path) -> None:
    partial = tmp_path / "out" / "chapter.partial.ipynb"
    end = f"import os, signal\nopen({str(partial)!r}, 'w').write('{{')\nos.kill(os.getppid(), signal.SIGKILL)"
    with pytest.raises(publishing.BookError, match="chapter failed") as failure:
        publishing.execute([write_chapter("profile = 'read'", end)], "smoke", 1, tmp_path / "out")
    [run] = failure.value.runs
    assert "papermill ended without a result" in str(run.error)


def test_ctrl_c_is_no_failure_of_a_chapter(write_chapter, tmp_path, interruptible) -> None:
    begun = tmp_path / "begun"
    chapter = write_chapter("profile = 'read'", f"import time\nopen({str(begun)!r}, 'w')\ntime.sleep(60)")
    program = f"import pathlib as p, facesr_lib.publishing as b; b.execute([p.Path({str(chapter)!r})], 'smoke', 1, "
    command = [sys.executable, "-c", f"{program}p.Path({str(tmp_path / 'out')!r}))"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    execution = interruptible(command, **pipes)
    while not begun.exists():
        assert execution.poll() is None
        time.sleep(0.1)
    os.killpg(execution.pid, signal.SIGINT)  # as a terminal does, to every process
    out, errors = execution.communicate(timeout=60)
    assert out.splitlines() == ["chapter (1 of 1): running with profile=smoke"]
    assert errors.strip().endswith("KeyboardInterrupt")


def test_chapter_without_parameters_cell_is_refused(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'", tags=())
    with pytest.raises(ValueError, match=r"chapter\.ipynb has no cell tagged `parameters`"):
        publishing.execute([chapter], "smoke", 1, tmp_path / "out")


def test_unknown_profile_and_chapter_are_named() -> None:
    with pytest.raises(ValueError, match=r"no profile 'full': choose one of smoke, read, paper"):
        publishing.execute([], "full")
    for name in ("99", ""):
        with pytest.raises(ValueError, match=rf"'{name}'.*01-problem"):
            publishing.chapters([name])
    with pytest.raises(ValueError, match="seed must be a whole number, at least 0; got -1"):
        publishing.execute([], "smoke", seed=-1)


def test_a_chapter_that_is_named_twice_is_executed_once(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'", "import time\nprint('slept', time.sleep(1))")
    [run] = publishing.execute([chapter, chapter], "smoke", 2, tmp_path / "out")
    assert run.error is None


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_jobs_is_refused(jobs, monkeypatch) -> None:
    monkeypatch.setattr("facesr_lib.publishing.scripts.fetch", lambda folder: pytest.fail("was fetched for nothing"))
    for run in (lambda: publishing.execute([], "smoke", jobs), lambda: publishing.build("smoke", jobs)):
        with pytest.raises(ValueError, match=f"jobs must be a whole number, at least 1; got {jobs}"):
            run()


def test_failure_does_not_stop_the_other_chapters(write_chapter, tmp_path) -> None:
    failing = write_chapter("profile = 'read'", "raise ArithmeticError").rename(tmp_path / "failing.ipynb")
    sound = write_chapter("profile = 'read'", "print('to the end')")
    with pytest.raises(publishing.BookError, match=r"^failing failed") as failure:
        publishing.execute([failing, sound], "smoke", 1, tmp_path / "out")
    assert [bool(run.error) for run in failure.value.runs] == [True, False]
    assert "to the end" in (tmp_path / "out" / "chapter.ipynb").read_text()


def test_another_notebook_in_the_folder_of_results_is_never_replaced(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'")
    (out := tmp_path / "out").mkdir()
    (out / "chapter.ipynb").write_text("somebody's own")
    with pytest.raises(FileExistsError, match="is no executed chapter: move it away"):
        publishing.execute([chapter], "smoke", 1, out)
    assert (out / "chapter.ipynb").read_text() == "somebody's own"


def test_a_damaged_result_of_ones_own_is_made_anew(write_chapter, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(EXECUTE, "repository", lambda: tmp_path)
    chapter = write_chapter("profile = 'read'", "print('whole')")
    kept = tmp_path / "_build" / "executed" / "smoke" / "chapter.ipynb"
    kept.parent.mkdir(parents=True)
    for damaged in ("", "{", "[]", '{"metadata": {}}'):
        kept.write_text(damaged)
        publishing.execute([chapter], "smoke", 1)
        assert "whole" in kept.read_text()


def test_another_seed_has_a_folder_of_its_own(write_chapter, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(EXECUTE, "repository", lambda: tmp_path)
    chapter = write_chapter("profile, seed = '', 0", "print('seed', seed + 1)")
    monkeypatch.setattr(EXECUTE, "chapters", lambda: [chapter])
    cli.main(["book", "--profile", "smoke", "--jobs", "1", "--seed", "7"])
    assert [path.parent.name for path in tmp_path.glob("_build/executed/*/chapter.ipynb")] == ["smoke-seed-7"]
    assert "seed 8" in (tmp_path / "_build/executed/smoke-seed-7/chapter.ipynb").read_text()


def test_two_builds_at_once_wait_for_each_other(write_chapter, tmp_path) -> None:
    chapter = write_chapter("profile = 'read'", "import time\nprint('slept', time.sleep(1))")
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(lambda _: publishing.execute([chapter], "smoke", 1, tmp_path / "out"), range(2)))
    assert [run.error for [run] in runs] == [None, None]
    assert "slept" in (tmp_path / "out" / "chapter.ipynb").read_text()


def test_a_chapter_sees_the_data_that_a_relative_path_names(write_chapter, tmp_path, monkeypatch) -> None:
    (tmp_path / "here" / "faces").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACESR_DATA", "here")
    look = "from facesr_lib import assets\nprint(assets.home(), (assets.home() / 'faces').is_dir())"
    [run] = publishing.execute([write_chapter("profile = 'read'", look)], "smoke", 1, tmp_path / "out")
    assert f"{tmp_path / 'here'} True" in run.notebook.read_text()


def test_what_is_found_is_part_of_the_key(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("FACESR_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = EXECUTE.surroundings({"profile": "smoke"})
    assert EXECUTE.surroundings({"profile": "smoke"}) == before
    place = tmp_path / "facesr" / assets.entry("alexnet").path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert EXECUTE.surroundings({"profile": "smoke"}) != before


def test_a_site_is_not_built_into_another_build_folder(tmp_path) -> None:
    (other := tmp_path / "_build" / "source" / "main.c").parent.mkdir(parents=True)
    other.write_text("int main;")
    with pytest.raises(FileExistsError, match="was not made by `facesr book`"):
        publishing.build("smoke", out=tmp_path)
    assert other.read_text() == "int main;"
