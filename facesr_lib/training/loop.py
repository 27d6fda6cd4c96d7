"""What every run of a training shares: budget, checkpoints, interrupts, the log, a stop when numbers go wrong."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from facesr_lib import files
from facesr_lib.messages import check
from facesr_lib.training.base import Training

CHECKPOINT = "last.ckpt"
LOCK = ".lock"  # held by the training that is at work in a folder


class Diverged(ValueError):
    """A loss or a weight is NaN or infinite; the last checkpoint was kept."""


@dataclass
class Report:
    """How a run ended: images seen, earlier runs counted in; its steps and seconds; whether by Ctrl-C or SIGTERM."""

    images_seen: int
    steps: int
    seconds: float
    interrupted: bool = False


def fit(
    trainee: Training,
    folder: str | Path,
    *,
    hours: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    progress: bool = True,
) -> Report:
    """Train until the budget is spent or somebody stops it.

    Parameters
    ----------
    trainee : Training
        All of its processes call this with the same arguments; the first writes files, and all end with the same step.
    folder : path
        Of the run: ``last.ckpt``, ``log.csv`` and the trainee's snapshots. New or empty, unless a run is resumed.
    hours, steps
        The budget of this call; at least one of them, unless the trainee ends by itself.
    resume : bool
        Go on from ``last.ckpt``.
    checkpoint_minutes : float
        Between two checkpoints; one more is written at the end.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        No budget or an impossible one, a folder that holds something or that another training is at work in, a
        checkpoint that is damaged or of another training.
    FileNotFoundError
        Nothing to resume.
    Diverged
        A loss or a weight is no longer a number.
    OSError
        The disk is full; the last checkpoint is intact.
    """
    steps = trainee.iterations if hours is None and steps is None else steps
    check_budget(hours, steps)
    folder, processes = files.expanded(folder), trainee.processes
    leader = processes.rank == 0
    with _alone(folder, resume) if leader else nullcontext():
        if resume:
            trainee.load_state_dict(read_checkpoint(folder / CHECKPOINT, trainee.config))
        start = saved = time.monotonic()
        end = start + 3600 * (float("inf") if hours is None else hours)
        before, done, over = trainee.hours, 0, trainee.finished  # a run that is resumed may be at its end
        with _signals() as stop, tqdm(total=steps, desc="training", disable=not (progress and leader)) as bar:
            while not over:
                losses = trainee.step()
                done, now = done + 1, time.monotonic()
                over = stop.is_set() or trainee.finished or done == steps or now > end
                due = over or now - saved > 60 * checkpoint_minutes
                # clocks and signals differ between processes; one alone would wait for ever
                over, due = map(bool, processes.sum(torch.tensor([over, due]).int()).tolist())
                bar.update()
                if not due and done % 20:  # reading numbers makes a GPU wait, so not on every step
                    continue
                values = {name: float(processes.mean(value)) for name, value in losses.items()}
                trainee.hours = before + (now - start) / 3600
                state = trainee.state_dict() if due else {}
                _require_numbers(values | state, trainee.images_seen, folder)
                bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
                if leader:
                    with _a_full_disk_told(folder):
                        _log(folder / "log.csv", trainee, values)
                        if due:
                            write_checkpoint(folder / CHECKPOINT, trainee.config, state)
                            trainee.snapshot(folder)
                saved = now if due else saved
        processes.sum(torch.zeros(1))  # none goes on before the files are there
        return Report(trainee.images_seen, done, time.monotonic() - start, stop.is_set())


def check_budget(hours: float | None, steps: int | None) -> None:
    """Raise a ``ValueError`` unless there is a budget, and a possible one: before long preparations, too."""
    if hours is None and steps is None:
        raise ValueError("give a budget: hours, steps, or both.")
    check("hours", 1 if hours is None else hours, above=0)
    check("steps", 1 if steps is None else steps, int, at_least=1)


@contextmanager
def _alone(folder: Path, resume: bool) -> Iterator[None]:
    """Make a run's folder, and keep every other training out of it; errors as `fit`'s."""
    _check_place(folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another training is at work in {folder}: let it end, or choose another folder.") from error
    with held:
        _check_place(folder, resume)  # another may have come and gone
        yield


def _check_place(folder: Path, resume: bool) -> None:
    begun = (folder / CHECKPOINT).is_file()
    if resume and not begun:
        raise FileNotFoundError(f"there is nothing to resume: no {folder / CHECKPOINT}.")
    if begun and not resume:
        raise ValueError(f"{folder} holds a run already: go on with it (--resume), or choose another folder.")
    if folder.exists() and not resume and (not folder.is_dir() or {each.name for each in folder.iterdir()} - {LOCK}):
        raise ValueError(f"{folder} is a file or holds files: choose a new or an empty folder for the run.")


def read_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint's state and make sure that it belongs to ``config``; errors as `fit`'s."""
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        theirs, state = contents["config"], contents["state"]
    except Exception as error:  # damaged bytes fail in many ways
        kind = type(error).__name__
        raise ValueError(f"{path} is damaged ({kind}): restore an earlier copy or start anew.") from error
    differences = [
        f"{name} is {theirs.get(name)} there and {config.get(name)} here"
        for name in sorted(theirs.keys() | config.keys())
        if theirs.get(name) != config.get(name)
    ]
    if differences:
        raise ValueError(f"{path} belongs to another training: {'; '.join(differences)}.")
    return state


def write_checkpoint(path: Path, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint in full or not at all, whenever the machine goes down."""
    contents = io.BytesIO()  # torch's own words for a full disk do not say so
    torch.save({"config": config, "state": state}, contents)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(contents.getbuffer())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _a_full_disk_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = "the last checkpoint is kept. Make room, then resume."
        none = "there is no checkpoint yet. Make room, empty the folder and start anew."
        way_out = kept if (folder / CHECKPOINT).exists() else none
        raise OSError(f"{folder} cannot be written to ({error.__cause__ or error}): {way_out}") from error


def _require_numbers(values: dict[str, Any], images_seen: int, folder: Path) -> None:
    bad = [name for name, value in values.items() if not _finite(value)]
    if bad:
        kept, none = "the last checkpoint is kept. Resume from it", "there is no checkpoint yet. Start anew"
        raise Diverged(
            f"{', '.join(bad)} is no longer a number after {images_seen} images; "
            f"{kept if (folder / CHECKPOINT).exists() else none} with a lower learning rate or stronger regularisation."
        )


def _finite(value: Any) -> bool:
    """Whether all numbers, of nested dictionaries and tensors too, are finite."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return not isinstance(value, float) or isfinite(value)


def _log(path: Path, trainee: Training, values: dict[str, float]) -> None:
    step, fresh = trainee.images_seen // trainee.batch, not path.exists()
    with path.open("a") as file:
        if fresh:
            print("step", "images", "hours", *values, sep=",", file=file)
        numbers = (f"{value:.6g}" for value in (trainee.hours, *values.values()))
        print(step, trainee.images_seen, *numbers, sep=",", file=file)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a clean end after the step; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
