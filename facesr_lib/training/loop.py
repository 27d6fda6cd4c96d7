"""What every training shares: budget, checkpoints, interrupts, the log, and a stop when numbers go wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer
from tqdm.auto import tqdm

from facesr_lib import files
from facesr_lib.messages import check
from facesr_lib.training.config import Checked
from facesr_lib.training.processes import Processes

CHECKPOINT = "last.ckpt"
LOCK = ".lock"  # held by the training that is at work in a folder
Choices = TypeVar("Choices", bound=Checked)


class Training(ABC, Generic[Choices]):
    """What is trained: a subclass makes steps; its state can be put away and taken up again exactly.

    A ``ValueError`` says that the processes do not divide the batch.

    Parameters
    ----------
    config : Checked
        Every choice.
    device : str or Processes
        Where, if this process is not alone.
    bf16 : bool
        Whether networks compute in bfloat16 (`forward`).
    seed : int, optional
        Of this process's own numbers; default: the configuration's.
    **inputs
        What else the run depends on, by what the user calls it: pictures, labels, networks, or a word that says which.

    Attributes
    ----------
    config : dict
        Choices and inputs, these by digests: all must be the same when a run is resumed.
    parts : dict
        Networks, optimisers and tensors whose state is kept, by the names that it has in checkpoints.
    optimizers : dict
        Of the networks that were enlisted, by their names.
    images_seen, hours : int, float
        So far, in all calls of `fit`.
    share : int
        Images per step of this process.
    random : torch.Generator
        This process's, on the CPU: what a batch is made of is the same on every device.
    noise : torch.Generator
        This process's, on its device: a GPU draws maps of noise itself, millions of numbers a step. On a CPU, `random`.
    iterations : int, optional
        How many steps it takes, if it ends by itself.
    """

    parts: dict[str, Any]

    def __init__(
        self, config: Choices, device: str | Processes, bf16: bool = False, seed: int | None = None, **inputs: Any
    ):
        self.processes = processes = device if isinstance(device, Processes) else Processes(device)
        self._c, self._bf16, batch = config, bf16, config.batch
        if batch % processes.count:
            raise ValueError(f"a batch of {batch} cannot be shared by {processes.count} processes: choose a multiple.")
        self.config = asdict(config) | {"bf16": bf16} | {name: _known_by(given) for name, given in inputs.items()}
        self.batch, self.share, self.device = batch, batch // processes.count, processes.device
        self.images_seen, self.hours = 0, 0.0
        self.iterations: int | None = getattr(config, "iterations", None)
        self._seed = (config.seed if seed is None else seed) + processes.rank
        self.random = torch.Generator().manual_seed(self._seed)
        on_cpu = self.device.type == "cpu"
        self.noise = self.random if on_cpu else torch.Generator(self.device).manual_seed(self._seed)

    def enlist(self, optimizer: Callable[..., Optimizer], called: str, **networks: nn.Module) -> None:
        """Let networks learn, here and with channels last, each by an optimiser of its own, and keep all of these.

        In a checkpoint an optimiser is ``called`` so, with its network's name in the place of "{}".
        """
        for network in networks.values():
            network.to(self.device).to(memory_format=torch.channels_last).train()
        self.optimizers = {name: optimizer(network.parameters()) for name, network in networks.items()}
        self.parts = {**networks, **{called.format(name): kept for name, kept in self.optimizers.items()}}

    @property
    def finished(self) -> bool:
        """Whether all its steps were made, or there is nothing more to gain."""
        return self.iterations is not None and self.images_seen >= self.iterations * self.batch

    @abstractmethod
    def step(self) -> dict[str, Tensor]:
        """Make one optimisation step, count its images, and return scalars for the log."""

    def forward(self, network: Callable[..., Any], *inputs: Any) -> Any:
        """A network's answer, a tensor or several, in float32 whatever it computed in."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            answer = network(*inputs)
        return answer.float() if isinstance(answer, Tensor) else tuple(part.float() for part in answer)

    @contextmanager
    def turn(self, optimizer: Optimizer, *, frozen: nn.Module | None = None) -> Iterator[None]:
        """A step of ``optimizer`` along the block's gradients, averaged over the processes; the frozen gets none."""
        optimizer.zero_grad()
        if frozen is not None:
            frozen.requires_grad_(False)
        yield
        if frozen is not None:
            frozen.requires_grad_(True)
        if self.processes.count > 1:
            learning = (parameter for group in optimizer.param_groups for parameter in group["params"])
            gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
            vector_to_parameters(self.processes.mean(parameters_to_vector(gradients)), gradients)
        optimizer.step()

    def snapshot(self, folder: Path) -> None:
        """Write what a person wants to see or use of the run so far, if the checkpoint is not enough."""

    def about(self) -> dict[str, str]:
        """How a network was trained, for its file."""
        return {"images_seen": str(self.images_seen), "config": json.dumps(self.config)}

    def normal(self, *shape: int) -> Tensor:
        """Standard Gaussian numbers of this process, drawn on its device."""
        return torch.randn(shape, generator=self.noise, device=self.noise.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; all processes have to call this at once."""
        own = torch.cat([each.get_state() for each in self._generators()])
        random = own.new_zeros(self.processes.count, len(own))
        random[self.processes.rank] = own
        state = {name: part if isinstance(part, Tensor) else part.state_dict() for name, part in self.parts.items()}
        so_far = {"images_seen": self.images_seen, "hours": self.hours}
        return state | so_far | {"random": self.processes.sum(random).cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called, exactly if there are as many processes, on the same kind of device."""
        for name, part in self.parts.items():
            if isinstance(part, Optimizer):  # whether a GPU replays its steps is not the checkpoint's to say
                for theirs, ours in zip(state[name]["param_groups"], part.param_groups, strict=True):
                    theirs |= {key: ours[key] for key in ("capturable",) if key in ours}
            if isinstance(part, Tensor):
                part.copy_(state[name])
            else:
                part.load_state_dict(state[name])
        self.images_seen, self.hours = state["images_seen"], state.get("hours", 0.0)
        sizes = [len(each.get_state()) for each in self._generators()]
        if state["random"].shape == (self.processes.count, sum(sizes)):
            for each, kept in zip(self._generators(), state["random"][self.processes.rank].split(sizes), strict=True):
                each.set_state(kept.clone())  # torch crashes on a view
        else:  # go on with numbers that none of them has drawn
            for each in self._generators():
                each.manual_seed(self._seed + 7919 * self.images_seen)

    def _generators(self) -> list[torch.Generator]:
        return [self.random] if self.noise is self.random else [self.random, self.noise]


def _known_by(given: Any) -> Any:
    """What a run keeps of an input, to know it again: a word itself, else a digest; of an array 64 rows count.

    Pictures are known by their mean levels, in eights: another processor may prepare the same ones otherwise, by a bit.
    """
    if given is None or isinstance(given, (str, dict)):
        return given
    if isinstance(given, nn.Module):
        given = [*given.state_dict().values()]
    known: list[str | bytes | Tensor] = []
    for part in given if isinstance(given, list) else [given]:
        known.append(str(tuple(part.shape)))
        if isinstance(part, np.ndarray):
            rows = part[:: len(part) // 64 + 1]
            part = (rows.mean((*range(1, rows.ndim),)) // 8 if rows.shape[-1] == 3 else rows).tobytes()
        known.append(part)
    return f"digest {files.digest(*known)[:16]}"


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
