"""Chapters executed by papermill.

papermill is the only executor. Each chapter runs in a process of its own and is kept under a key of everything it
could have seen (its source, the library, the data, the profile, the machine).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from facesr_lib import assets, images
from facesr_lib.chapter import LEFT_OUT, PROFILES
from facesr_lib.devices import cores
from facesr_lib.files import digest, replacing, shown
from facesr_lib.messages import check, choose

PACKAGES = (
    *("facesr_lib", "torch", "torchvision", "numpy", "kornia", "torchmetrics", "lpips", "matplotlib"),
    *("ipywidgets", "anywidget", "papermill", "jupyter-book"),
)
BUILDER = ("publishing", "cli")  # no chapter's business: they may change and it stays as executed


@dataclass(frozen=True)
class Run:
    """One chapter, executed: where the result lies and what went wrong, if anything did.

    ``left_out`` are the findings that it does not show, as they do not hold here.
    """

    chapter: Path
    notebook: Path
    error: str | None = None
    left_out: tuple[str, ...] = ()


class BookError(ChildProcessError):
    """A chapter or the page builder failed; `runs` holds the chapters that were executed."""

    def __init__(self, message: str, runs: Sequence[Run] = ()) -> None:
        super().__init__(message)
        self.runs = runs


def repository() -> Path:
    """Return the checkout that holds the chapters (the library may be installed without them)."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "book" / "_toc.yml").exists():
        raise FileNotFoundError(
            f"there is no book beside this installation of facesr_lib (looked for {root / 'book' / '_toc.yml'}); "
            "clone the repository and run `make book` there"
        )
    return root


def chapters(names: Sequence[str] = ()) -> list[Path]:
    """List the notebooks of ``book/_toc.yml`` in reading order: all, or those whose names begin so, as "03-pulse" does.

    A ``ValueError`` says which name fits no chapter.
    """
    import yaml

    book = repository() / "book"
    contents = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    pages = [contents["root"], *(page["file"] for part in contents["parts"] for page in part["chapters"])]
    found = [path for page in pages if (path := book / f"{page}.ipynb").exists()]
    for name in names:
        if not name or not any(path.name.startswith(name) for path in found):
            raise ValueError(f"no chapter is called {name!r}: there are {', '.join(path.stem for path in found)}.")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def machine() -> dict[str, str]:
    """Describe what the chapters run on: processor, cores, GPU, Python and package versions."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "Processor": model[1] if model else platform.processor() or platform.machine(),
        "Cores": str(cores()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def execute(
    notebooks: Sequence[str | Path] = (),
    profile: str = "read",
    jobs: int | None = None,
    out: Path | None = None,
    *,
    seed: int = 0,
) -> list[Run]:
    """Execute chapters side by side with papermill; one whose key has not changed is not run again.

    Parameters
    ----------
    notebooks : sequence of str or Path
        Names of chapters (see `chapters`) or paths of notebooks, each with a cell tagged ``parameters``. Empty: all
        chapters.
    profile, seed
        Handed to the chapter as its parameters; its text was written with seed 0.
    jobs : int, optional
        Chapters at a time, by default as many as cores, which they share out unless ``OMP_NUM_THREADS`` is set.
    out : Path, optional
        Folder of the results, by default ``_build/executed/<profile>``, for another seed ``<profile>-seed-<seed>``.

    Raises
    ------
    ValueError
        If a name or the profile is unknown, ``jobs`` is below 1 or ``seed`` below 0, or a notebook has no parameters
        cell.
    BookError
        If a chapter failed, after the others have ended. Each failure's cell, source and traceback are printed when it
        occurs and stand in the ``error`` of its run.
    """
    jobs = checked(profile, jobs)
    check("seed", seed, int, at_least=0)
    named = [path for name in notebooks for path in ([name] if isinstance(name, Path) else chapters([name]))]
    todo = list(dict.fromkeys(named)) or chapters()
    for chapter in todo:
        if not any("parameters" in cell["metadata"].get("tags", ()) for cell in read(chapter)["cells"]):
            raise ValueError(f"{chapter.name} has no cell tagged `parameters`: papermill could not set its profile.")

    ours = repository() / "_build" / "executed" / (f"{profile}-seed-{seed}" if seed else profile)
    out = (out or ours).expanduser().absolute()
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        return _execute(todo, {"profile": profile, "seed": str(seed)}, jobs, out, kept_only_here=out == ours)


def checked(profile: str, jobs: int | None) -> int:
    """Return how many chapters run at a time; errors as `execute`."""
    choose(profile, PROFILES, "profile")
    jobs = cores() if jobs is None else jobs
    check("jobs", jobs, int, at_least=1)
    return jobs


def _execute(todo: list[Path], parameters: dict[str, str], jobs: int, out: Path, *, kept_only_here: bool) -> list[Run]:
    """Execute notebooks, all that is needed checked; nothing else lies in the folder if they are ``kept_only_here``."""
    around = surroundings(parameters)
    keys = {chapter: digest(around, chapter) for chapter in todo}
    waiting = [chapter for chapter in todo if _executed_key(out / chapter.name, kept_only_here) != keys[chapter]]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // max(1, min(jobs, len(waiting))))))
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": threads, **os.environ, "OMP_NUM_THREADS": threads}
    if os.environ.get("FACESR_DATA"):
        environment["FACESR_DATA"] = str(assets.home())  # a chapter runs in another folder
    running: list[Popen] = []
    ended = threading.Event()

    def one(chapter: Path) -> Run:
        place = f"{chapter.stem} ({todo.index(chapter) + 1} of {len(todo)})"
        if chapter not in waiting:
            print(f"{place}: unchanged", flush=True)
            kept = read(out / chapter.name)["metadata"]["facesr"]
            return Run(chapter, out / chapter.name, left_out=tuple(kept["left_out"]))
        print(f"{place}: running with profile={parameters['profile']}", flush=True)
        start = time.monotonic()
        run = _run(chapter, out, parameters, environment, keys[chapter], running)
        if ended.is_set():  # by Ctrl-C: no failure of its own
            return run
        print(f"{place}: {'FAILED' if run.error else 'done'} after {time.monotonic() - start:.0f} s", flush=True)
        for said in run.left_out:
            print(f"{place}: left out, for it does not hold here: {said}", flush=True)
        if run.error:
            print(run.error, file=sys.stderr, flush=True)
        return run

    with ThreadPoolExecutor(jobs) as pool:
        try:
            runs = list(pool.map(one, todo))
        except BaseException:  # Ctrl-C, or a fault of our own: no kernel stays behind, nothing more begins
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    if failed := [run.chapter.stem for run in runs if run.error]:
        raise BookError(f"{', '.join(failed)} failed: see the traceback above.", runs)
    return runs


def read(notebook: Path) -> dict[str, Any]:
    """Read a notebook; of an executed one ``["metadata"]["facesr"]`` holds its "key" and what was "left_out"."""
    return json.loads(notebook.read_text(encoding="utf-8"))


def surroundings(parameters: dict[str, str]) -> str:
    """Digest what any chapter could see beside its own source: parameters, library (less `BUILDER`), data found."""
    root = repository()
    parts: list[str | Path] = [json.dumps(parameters), json.dumps(machine())]
    for folder in (root / "facesr_lib", root / "data"):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and "__pycache__" not in inside.parts and not set(BUILDER) & set(inside.parts):
                parts += [inside.as_posix(), path]
    for name in assets.names():  # gigabytes, perhaps: names and sizes stand for contents
        with suppress(assets.AssetMissing):
            place = assets.path(name)
            files = [place] if place.is_file() else shown(place, images.SUFFIXES)
            parts += [f"{name}: {path.relative_to(place)} {path.stat().st_size}" for path in files if path.is_file()]
            if place.with_suffix(".safetensors").is_file():  # what `facesr train flow` has put beside a checkpoint
                parts.append(f"{name}: {place.with_suffix('.safetensors').stat().st_size}")
    return digest(*parts)


def _run(
    chapter: Path, out: Path, parameters: dict[str, str], environment: dict[str, str], key: str, running: list[Popen]
) -> Run:
    """Move a success into its place, key and all, in one step; leave a failure where it is and read its error."""
    partial, target = out / f"{chapter.stem}.partial.ipynb", out / chapter.name
    log, left_out = partial.with_suffix(".log"), partial.with_suffix(".left-out")
    command = [sys.executable, "-m", "papermill", str(chapter), str(partial)]
    command += [word for name, value in parameters.items() for word in ("-p", name, value)]
    command += ["--kernel", "python3", "--cwd", str(chapter.parent), "--no-progress-bar"]
    left_out.write_text("")
    with log.open("wb") as file:
        process = Popen(command, env=environment | {LEFT_OUT: str(left_out)}, stdin=DEVNULL, stdout=file, stderr=file)
    running.append(process)
    if process.wait():
        return Run(chapter, partial, _error(chapter, partial))
    notebook, said = read(partial), left_out.read_text(encoding="utf-8").splitlines()
    notebook["metadata"]["facesr"] = {"key": key, "left_out": said}
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")
    for path in (partial, log, left_out):
        path.unlink()
    return Run(chapter, target, left_out=tuple(said))


def _error(chapter: Path, partial: Path) -> str:
    """Name the cell that failed (numbered as in the chapter's source), its code and its traceback."""
    number, cells = -1, []
    with suppress(OSError, ValueError):  # there is none, or what a full disk has left of it
        cells = read(partial)["cells"]
    for cell in cells:
        if {"injected-parameters", "papermill-error-cell-tag"} & set(cell["metadata"].get("tags", ())):
            continue  # papermill's own
        number += 1
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))
                return f"{chapter.name}, cell {number}:\n\n{''.join(cell['source'])}\n\n{trace}"
    return f"{chapter.name}: papermill ended without a result\n\n{partial.with_suffix('.log').read_text()[-4000:]}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let other builds wait until this one is done with a folder."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        print(f"another build works in {folder}: waiting for it", flush=True)
        held = lock.acquire()
    with held:
        yield


def _executed_key(notebook: Path, ours: bool) -> str | None:
    """Return the key that a chapter was executed under; ``None`` where it was not, or what is ``ours`` is damaged.

    Elsewhere another's file is never taken for it.
    """
    if not notebook.exists():
        return None
    try:
        return read(notebook)["metadata"]["facesr"]["key"]
    except (ValueError, KeyError, TypeError):
        if ours:
            return None
        raise FileExistsError(f"{notebook} is no executed chapter: move it away, or choose another folder.") from None
