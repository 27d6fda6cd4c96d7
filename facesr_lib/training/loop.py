"""What every training shares: budget, checkpoints, interrupts, the log, and a stop when numbers go wrong."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from facesr_lib import files

CHECKPOINT = "last.ckpt"


class Trainee(Protocol):
    """What is trained: it makes a step, and can be put away and taken up again."""

    config: dict[str, Any]
    """Everything that must agree when a run is resumed."""

    images_seen: int

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to gain."""

    def step(self) -> dict[str, Tensor]:
        """Make one optimisation step; returns scalars for the log."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, random states included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""

    def snapshot(self, folder: Path) -> None:
        """Write what a person wants to see or use of the run so far."""


class Diverged(FloatingPointError):
    """A loss is NaN or infinite; the last checkpoint was kept."""


@dataclass
class Report:
    """How a run ended.

    Attributes
    ----------
    images_seen : int
        In all, earlier runs counted in.
    steps : int
        Of this run.
    seconds : float
    interrupted : bool
        Ended by Ctrl-C or SIGTERM.
    """

    images_seen: int
    steps: int
    seconds: float
    interrupted: bool = False


@dataclass
class Stop:
    """Whether a signal asked for an end."""

    asked: bool = field(default=False)


def fit(
    trainee: Trainee,
    folder: str | Path,
    *,
    hours: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    fabric: Any = None,
    progress: bool = True,
) -> Report:
    """Train until the budget is spent or somebody stops it.

    Parameters
    ----------
    trainee : Trainee
    folder : path
        Of the run: ``last.ckpt``, ``log.csv`` and the trainee's snapshots.
    hours, steps
        The budget of this call; at least one of them.
    resume : bool
        Go on from ``last.ckpt``.
    checkpoint_minutes : float
        Between two checkpoints; one more is written at the end.
    fabric : lightning_fabric.Fabric, optional
        The processes that train together: the first of them writes files, and all end with the same step.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        No budget or an impossible one, a folder that holds another run, a checkpoint that is damaged or of another
        configuration.
    FileNotFoundError
        Nothing to resume.
    Diverged
        A loss is no longer a number.
    OSError
        The disk is full; the last checkpoint is intact.
    """
    if hours is None and steps is None:
        raise ValueError("give a budget: hours, steps, or both.")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    folder = Path(folder)
    checkpoint = folder / CHECKPOINT
    if resume:
        trainee.load_state_dict(read_checkpoint(checkpoint, trainee.config))
    elif checkpoint.exists():
        raise ValueError(f"{folder} holds a run already: pass resume to go on with it, or choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)

    leader = fabric is None or fabric.is_global_zero
    start = saved = time.monotonic()
    done = 0
    with _signals() as stop, tqdm(total=steps, desc="training", disable=not (progress and leader)) as bar:
        over = False
        while not over:
            losses = trainee.step()
            done += 1
            now = time.monotonic()
            over = stop.asked or trainee.finished or done == steps or (hours is not None and now - start > hours * 3600)
            if fabric is not None and fabric.world_size > 1:  # clocks and signals differ; one alone would wait for ever
                over = bool(fabric.all_reduce(float(over), reduce_op="sum") > 0)
            due = over or now - saved > 60 * checkpoint_minutes
            bar.update()
            if due or done % 20 == 0:  # reading numbers makes a GPU wait, so not on every step
                row = _row(trainee, losses, done, now - start)
                bar.set_postfix({name: f"{value:.3g}" for name, value in row.items() if name != "step"})
                if leader:
                    _log(folder / "log.csv", row)
            if due and leader:
                write_checkpoint(folder / CHECKPOINT, trainee)
                trainee.snapshot(folder)
                saved = now
    return Report(trainee.images_seen, done, time.monotonic() - start, stop.asked)


def read_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint's state and make sure that it belongs to ``config``; errors as `fit`'s."""
    if not path.is_file():
        raise FileNotFoundError(f"there is nothing to resume: no {path}.")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        theirs, state = contents["config"], contents["state"]
    except Exception as error:  # damaged bytes fail in many ways
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}): restore an earlier copy or start anew."
        ) from error
    differences = [
        f"{name} is {theirs.get(name)} there and {config.get(name)} here"
        for name in sorted(theirs.keys() | config.keys())
        if theirs.get(name) != config.get(name)
    ]
    if differences:
        raise ValueError(f"{path} belongs to another configuration: {'; '.join(differences)}.")
    return state


def write_checkpoint(path: Path, trainee: Trainee) -> None:
    """Write a checkpoint in full or not at all, whenever the machine goes down."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"config": trainee.config, "state": trainee.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())


def _row(trainee: Trainee, losses: dict[str, Tensor], step: int, seconds: float) -> dict[str, float]:
    values = {name: float(value) for name, value in losses.items()}
    bad = [name for name, value in values.items() if value != value or abs(value) == float("inf")]
    if bad:
        raise Diverged(
            f"{', '.join(bad)} is no longer a number after {trainee.images_seen} images; the last checkpoint is kept. "
            "Resume from it with a lower learning rate or stronger regularisation."
        )
    return {"step": step, "images": trainee.images_seen, "hours": seconds / 3600, **values}


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(row)
        writer.writerow(f"{value:.6g}" for value in row.values())


@contextmanager
def _signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a clean end after the step; a second Ctrl-C interrupts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
