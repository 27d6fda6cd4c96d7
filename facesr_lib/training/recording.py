"""Small trainings at 32², recorded while they run: what the appendix "Growing a prior" shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from facesr_lib.networks import checkpoints
from facesr_lib.prior import FacePrior
from facesr_lib.training.processes import Processes
from facesr_lib.training.stylegan2 import Config, PriorTraining

SMALL = Config(
    resolution=32,
    z_dim=64,
    w_dim=64,
    mapping_layers=4,
    channel_base=1024,
    channel_max=64,
    r1_gamma=0.01,
    ema_images=2_000,
)
VARIANTS = {
    "all parts": SMALL,
    "without R1": replace(SMALL, r1_gamma=0.0),
    "without augmentation": replace(SMALL, augment=0.0),
    "without path length": replace(SMALL, path_weight=0.0),
}
"""Each regulariser left out in turn."""


@dataclass
class Recording:
    """A training, seen at some moments."""

    moments: list[int]  # images seen
    priors: list[FacePrior]  # the moving average at each moment
    losses: dict[str, Tensor]  # (steps / 10,): every tenth step's losses and statistics


def record(
    pixels: np.ndarray, config: Config, moments: Sequence[int], *, device: str = "auto", progress: bool = True
) -> Recording:
    """Train from scratch on pixels (N, R, R, 3), uint8, and keep what the network is at some moments.

    Moments are images seen, rounded up to whole batches; the last one ends the training.
    """
    trainee = PriorTraining(pixels, config, Processes(device))
    due = {-(-moment // config.batch) * config.batch for moment in moments}
    taken: dict[int, FacePrior] = {}
    rows: list[dict[str, float]] = []
    for step in tqdm(range(max(due) // config.batch), desc="training", leave=False, disable=not progress):
        losses = trainee.step()
        if step % 10 == 0:
            rows.append({name: float(value) for name, value in losses.items()})
        if trainee.images_seen in due:
            taken[trainee.images_seen] = trainee.prior()
    return Recording([*taken], [*taken.values()], {name: torch.tensor([row[name] for row in rows]) for name in rows[0]})


def save(path: Path, recordings: dict[str, Recording]) -> None:
    """Write recordings to a ``.safetensors`` file, generators in half precision."""
    tensors: dict[str, Tensor] = {}
    for variant, recording in recordings.items():
        tensors |= {f"{variant}/losses/{name}": values for name, values in recording.losses.items()}
        for seen, prior in zip(recording.moments, recording.priors, strict=True):
            state = prior.generator.state_dict()
            tensors |= {f"{variant}/{seen}/{name}": value.half() for name, value in state.items()}
    moments = {variant: json.dumps(recording.moments) for variant, recording in recordings.items()}
    checkpoints.write(tensors, path, moments)


def load(path: Path) -> dict[str, Recording]:
    """Read what `save` wrote; a variant's networks have the sizes of `VARIANTS`."""
    tensors, metadata = checkpoints.read(path)

    def prior(variant: str, seen: int) -> FacePrior:
        name, generator = f"{variant}/{seen}", VARIANTS[variant].generator()
        return FacePrior(name, checkpoints.fill(generator, checkpoints.below(tensors, f"{name}/"), path), None)

    recordings = {}
    for variant in (name for name in VARIANTS if name in metadata):
        moments = json.loads(metadata[variant])
        losses = checkpoints.below(tensors, f"{variant}/losses/")
        recordings[variant] = Recording(moments, [prior(variant, seen) for seen in moments], losses)
    return recordings
