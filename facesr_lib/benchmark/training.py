"""How fast networks train on this machine, and how much of that is waiting for images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from math import lcm
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from facesr_lib.benchmark import clock
from facesr_lib.losses import block_features
from facesr_lib.metrics import MetricUnavailable
from facesr_lib.networks.landmarks import FAN, DistilledFAN, LandmarkNetwork
from facesr_lib.training import esrgan
from facesr_lib.training import progressive as growing
from facesr_lib.training.base import Training
from facesr_lib.training.processes import Processes
from facesr_lib.training.stylegan2 import Config, PriorTraining
from facesr_lib.training.supervised import RECIPES, SupervisedTraining
from facesr_lib.training.supervised import Config as Enlarging

_FACES = 900
Timed = tuple[Training, Callable[[], Any], dict[int, float]]
"""A trainee, what fetches its images, and which of its steps are timed: number → share of all that are like it."""


def prior(config: Config, processes: Processes, bf16: bool = True) -> Timed:
    """A prior's training, on pixels in a file, as those of real faces are; its penalties come on some steps only."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # some systems keep mapped files
        path = Path(folder) / "pixels.npy"
        np.save(path, _pixels(config.resolution))
        trainee = PriorTraining(np.load(path, mmap_mode="r"), config, processes, bf16=bf16)
    period = lcm(config.r1_interval, config.path_interval)
    kinds = [(i % config.r1_interval == 0, i % config.path_interval == 0) for i in range(period)]
    first = {kind: i for i, kind in reversed([*enumerate(kinds)])}
    return trainee, trainee.real, {first[kind]: times / period for kind, times in Counter(kinds).items()}


def patches(config: esrgan.Start | esrgan.Config, processes: Processes, bf16: bool = True) -> Timed:
    """A stage of ESRGAN's or LSRGAN's training."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (321, 481, 3), dtype=np.uint8) for _ in range(20)]
    on: dict[str, Any] = {"device": str(processes.device), "bf16": bf16}
    if isinstance(config, esrgan.Start):
        trainee: esrgan.SuperResolution = esrgan.Pretraining(pictures, config, **on)
    else:
        with tempfile.TemporaryDirectory() as start:
            esrgan.Pretraining(pictures, esrgan.Start(patch=config.patch)).snapshot(Path(start))
            trainee = esrgan.Refinement(pictures, config, start, **on)
    return trainee, trainee.pairs, {0: 1.0}


def progressive(fan: Callable[[], LandmarkNetwork], processes: Processes, width: float = 0.5, batch: int = 4) -> Timed:
    """Progressive super-resolution's, attentive by a landmark network with random weights.

    Faces are few at once, as FAN takes its time on a CPU; without a network for the feature loss that is left out.
    """
    seen_by, features = "nothing", None
    with suppress(MetricUnavailable):
        seen_by, features = block_features()
    config = growing.Config(width=width, batch=batch, feature=float(features is not None))
    given: dict[str, Any] = {"fan": fan(), "features": features, "seen_by": seen_by, "device": str(processes.device)}
    trainee = growing.ProgressiveTraining(_pixels(growing.SIDE), config, **given)
    shares = {int(done * config.iterations): share for done, share in ((0.2, 0.25), (0.45, 0.25), (0.9, 0.5))}
    return trainee, trainee.faces, shares  # its three steps, by their share in a whole training


def supervised(name: str, processes: Processes, width: float = 0.5, batch: int = 4) -> Timed:
    """A network's that it is compared with."""
    points, labels = torch.zeros(_FACES, 68, 2), np.zeros((_FACES, growing.SIDE, growing.SIDE), np.uint8)
    known: dict[str, Any] = {"points": points, "labels": labels, "device": str(processes.device)}
    trainee = SupervisedTraining(name, _pixels(growing.SIDE), Enlarging(width=width, batch=batch), **known)
    return trainee, trainee.faces, {0: 1.0}


TRAININGS: dict[str, Callable[[Processes], Timed]] = {
    "64×64": partial(prior, Config()),
    "128×128": partial(prior, Config(resolution=128)),
    "ESRGAN's first stage": partial(patches, esrgan.Start()),
    "LSRGAN's second stage": partial(patches, esrgan.Config(latent=True)),
    "progressive, width 0.5, by the distilled FAN": partial(progressive, DistilledFAN),
    "progressive, width 0.5, by FAN-4": partial(progressive, FAN),
    **{f"{name}, width 0.5": partial(supervised, name) for name in RECIPES},
}
"""What ``facesr train prior --resolution 64`` and ``128``, ``esrgan-start`` and ``esrgan --latent true`` train, and the
networks for faces at half their width."""


def run(
    device: str = "auto", quick: bool = False, trainings: Mapping[str, Callable[[Processes], Timed]] = TRAININGS
) -> list[dict[str, Any]]:
    """Measure training steps on random pixels.

    Each kind of step is timed by itself, and the kinds are averaged in the proportion in which they come. What compares
    features that no network gives here is left out.

    A row holds images, or patches, per second; the share of a step that it takes to fetch real ones (with the copy to
    the device, or with what makes patches small); the arithmetic rate, of convolutions and matrix products as PyTorch
    counts them; and that as a share of `convolution_rate`.
    """
    processes, rows = Processes(device), []
    for name, make in trainings.items():
        with suppress(MetricUnavailable):
            trainee, load, shares = make(processes)
            step, operations, loading = _steps(trainee, load, shares, 1 if quick else 3)
            seen_by, bf16 = trainee.config.get("seen_by"), trainee.config["bf16"]
            rate = convolution_rate(processes.device, torch.bfloat16 if bf16 else torch.float32)
            rows.append(
                {
                    "training": name + f", features of {seen_by}" * bool(seen_by),
                    "batch": trainee.batch,
                    "precision": "bfloat16" if bf16 else "float32",
                    "images per second": f"{trainee.batch / step:.3g}",
                    "loading images": f"{100 * loading / step:.2f} %",
                    "TFLOP/s": f"{operations / step / 1e12:.3f}",
                    "of the convolution rate": f"{operations / step / rate:.2f}",
                }
            )
    return rows


@cache
def convolution_rate(device: torch.device, precision: torch.dtype) -> float:
    """Floating-point operations per second of one large 3×3 convolution, forward only: what this machine can do."""
    batch = 8 if device.type == "cpu" else 64
    x = torch.randn(batch, 256, 64, 64, device=device, dtype=precision).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=precision).to(memory_format=torch.channels_last)
    with torch.no_grad():
        (seconds,) = clock.medians([lambda: F.conv2d(x, weight, padding=1)], device, 6)
    return 2 * x.numel() * 256 * 9 / seconds


def _pixels(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_FACES, side, side, 3), dtype=np.uint8)


def _steps(
    trainee: Training, load: Callable[[], Any], shares: dict[int, float], repeat: int
) -> tuple[float, float, float]:
    """Seconds and operations of a step, and the seconds that it takes to fetch its images; the rest as in `Timed`."""
    device, step, operations = trainee.processes.device, 0.0, 0.0
    for number, share in shares.items():

        def once(number: int = number) -> None:
            trainee.images_seen = number * trainee.batch
            trainee.step()

        with Operations() as counted:
            once()  # warms up, too
        for _ in range(3 if device.type == "cuda" else 0):  # and then a GPU replays it (`training.capture`)
            once()
        operations += counted.total * share
        step += median(clock.seconds(once, device) for _ in range(repeat)) * share
    return step, operations, median(clock.seconds(load, device) for _ in range(20))


class Operations(TorchDispatchMode):
    """Counts floating-point operations, backward too (PyTorch's own counter fails on gradients of gradients)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operation run, and count it."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result
