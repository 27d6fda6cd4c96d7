"""How a paper's table is described: its scales, its rows, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from facesr_lib import assets
from facesr_lib.degrade import CameraPipeline, Downsample
from facesr_lib.evaluation import measures, unaligned
from facesr_lib.metrics import pretrained
from facesr_lib.training.progressive import NETWORK

PAPER_RESOLUTION = 1024


@dataclass(frozen=True)
class Row:
    """A method as a table has it."""

    label: str = field(repr=False)  # rows that differ in it alone are measured once
    method: str = ""  # in `restoration.METHODS`; "" where codes are measured, not pictures
    options: Mapping[str, Any] = field(default_factory=dict)  # for the method, or for what measures codes
    start: Row | None = None  # a first stage, whose codes the method gets as ``anchor``
    before: Callable[[Tensor], Tensor] | None = None  # what befalls the face before it is made small, in both stages,
    corrupt: Callable[[Tensor], Tensor] | None = None  # and what befalls the small picture
    needs: str = field(default="", repr=False)  # what is not shipped: a registry entry, or the run of a training with
    flags: str = field(default="", repr=False)  # these flags of `facesr train progressive` (see `here`)


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper."""

    about: str
    scales: Mapping[int, int]  # of a small prior → the paper's that it stands for: 16 → 64 at 64²; codes stand at 1
    rows: tuple[Row, ...]
    measure: measures.Measure = measures.quality  # seconds: on a machine that does nothing else
    pictures: tuple[str, ...] = ()  # sets of `data.picture_set`, if it is not about faces: its settings,
    elsewhere: tuple[str, ...] = ()  # and the paper's others, which are not to be had here
    read: Callable[[str], list[Tensor]] | None = None  # what gives the pictures of a setting, if no set does
    unaligned: tuple[Row, ...] = ()  # rows that are measured on faces moved at random, too
    resolution: int = 0  # of the faces, where networks that need no prior restore them; 0: the prior's
    networks: tuple[str, ...] = ()  # that its measure asks besides its rows, as `run.asked` names them
    operator: Callable[[int], Callable[[Tensor], Tensor]] = Downsample  # of a scale: how faces are made small
    cameras: Mapping[str, CameraPipeline | None] = field(default_factory=dict)  # its settings: what befalls the faces

    @property
    def paper_settings(self) -> list[str]:
        """What the paper's columns or blocks are called: scales, sets of pictures, or what befalls the faces."""
        ours = self.pictures or self.cameras or [f"{scale}x" for scale in self.scales.values()]
        moved = [unaligned.NAME] if self.unaligned else []
        return [*ours, *moved, *self.elsewhere]

    def settings(self, resolution: int) -> list[tuple[int, int]]:
        """Pairs of our scale and the paper's; they are the same for a prior of the papers' size."""
        return [(paper if resolution >= PAPER_RESOLUTION else ours, paper) for ours, paper in self.scales.items()]


def located(network: str) -> Path:
    """Where a network lies: a registry entry, a file, or what a training has left (see `here`)."""
    run = _run(network)
    return run if network not in assets.names() and run.is_file() else assets.locate(network)


def _run(name: str) -> Path:
    """Where the network of a training lies, or is to lie: one of the project's, or below `assets.home`."""
    kept = assets.SHIPPED / "trainings" / f"{name}.safetensors"
    return kept if kept.is_file() else assets.home() / name / NETWORK


def here(rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """Tell rows whose networks are on this machine from others, of which it is said how to come by them.

    The project's own trainings lie in its repository, ``data/trainings``; anybody else's in the folder of this name
    below `assets.home`. The method takes the network.
    """
    found, left_out = [], []
    for row in rows:
        run, file = row.needs not in ("", *assets.names()), _run(row.needs)
        if run and file.is_file():
            found.append(replace(row, options={**row.options, "weights": str(file)}))
            continue
        entries = sorted({row.needs, *row.flags.split()} & {*assets.names()})
        lacking = [why for name in entries if (why := pretrained.reason(partial(assets.path, name)))]
        if run:
            command = " ".join(["facesr train progressive", *row.flags.split(), "--out", str(file.parent)])
            same = "with the --width, --batch and --iterations of the other rows"
            lacking.append(f"there is no {file}; train it {same}: {command}")
        left_out += [f"{row.label}: {what}" for what in lacking]
        found += [] if lacking else [row]
    return found, left_out


BASELINES = (Row("bilinear", "bilinear"), Row("bicubic", "bicubic"))
PULSE = Row("PULSE", "pulse")
