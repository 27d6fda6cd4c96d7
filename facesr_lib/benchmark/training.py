"""How fast networks train on this machine, and how much of that is waiting for images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
from facesr_lib.training.loop import Training
from facesr_lib.training.processes import Processes
from facesr_lib.training.stylegan2 import Config, PriorTraining
from facesr_lib.training.supervised import RECIPES, SupervisedTraining
from facesr_lib.training.supervised import Config as Enlarging

CONFIGURATIONS: dict[str, Config | esrgan.Start | esrgan.Config] = {
    "64×64": Config(),
    "128×128": Config(resolution=128),
    "ESRGAN's first stage": esrgan.Start(),
    "LSRGAN's second stage": esrgan.Config(latent=True),
}
FANS: dict[str, Callable[[], LandmarkNetwork]] = {"the distilled FAN": DistilledFAN, "FAN-4": FAN}
_FACES = 900


def run(
    device: str = "auto",
    quick: bool = False,
    *,
    configurations: Mapping[str, Config | esrgan.Start | esrgan.Config] = CONFIGURATIONS,
    precision: torch.dtype = torch.bfloat16,
) -> list[dict[str, Any]]:
    """Measure training steps on random pixels: a prior's, read from a file as those of real faces are, and ESRGAN's.

    A prior's penalties come on some steps only. So each kind of step (with and without either) is timed by itself, and
    the kinds are averaged in the proportion in which they come. ``configurations`` are by default what ``facesr train
    prior --resolution 64`` and ``128``, ``facesr train esrgan-start`` and ``esrgan --latent true`` train; one that
    compares features which no network gives here is left out. ``precision`` is the convolutions'.

    A row holds images, or patches, per second; the share of a step that it takes to fetch real ones (with the copy to
    the device, or with what makes patches small); the arithmetic rate, of convolutions and matrix products as PyTorch
    counts them; and that as a share of `convolution_rate`.
    """
    processes, repeat = Processes(device), 1 if quick else 3
    rate, rows = convolution_rate(processes.device, precision), []
    for name, config in configurations.items():
        measure: Any = _patches if isinstance(config, esrgan.Shared) else _prior
        with suppress(MetricUnavailable):
            rows.append(_row(name, config.batch, precision, measure(config, processes, precision, repeat), rate))
    return rows


def progressive(
    device: str = "auto",
    quick: bool = False,
    *,
    fans: Mapping[str, Callable[[], LandmarkNetwork]] = FANS,
    width: float = 0.5,
    batch: int = 4,
) -> list[dict[str, Any]]:
    """Measure training steps of progressive super-resolution, attentive by one landmark network or another.

    Rows as `run`'s; the three steps count by their share in a whole training. Weights are random, faces
    few at once, as FAN takes its time on a CPU; the feature loss is left out where no network has come for it.
    """
    name, features = "nothing", None
    with suppress(MetricUnavailable):
        name, features = block_features()
    config = growing.Config(width=width, batch=batch, feature=float(features is not None))
    shares = {int(done * config.iterations): share for done, share in ((0.2, 0.25), (0.45, 0.25), (0.9, 0.5))}
    rate, rows = convolution_rate(Processes(device).device, torch.float32), []
    for fan, make in fans.items():
        options: dict[str, Any] = {"fan": make(), "features": features, "device": device}
        trainee = growing.ProgressiveTraining(_pixels(growing.SIDE), config, **options)
        measured = _steps(trainee, trainee.faces, shares, 1 if quick else 3)
        named = f"progressive, width {width:g}, by {fan}, features of {name}"
        rows.append(_row(named, batch, torch.float32, measured, rate))
    return rows


def supervised(
    device: str = "auto", quick: bool = False, *, names: Iterable[str] = RECIPES, width: float = 0.5, batch: int = 4
) -> list[dict[str, Any]]:
    """Measure training steps of the networks that it is compared with; rows and what is left out as `progressive`'s."""
    points, labels = torch.zeros(_FACES, 68, 2), np.zeros((_FACES, growing.SIDE, growing.SIDE), np.uint8)
    known: dict[str, Any] = {"points": points, "labels": labels, "device": device}
    rate, rows = convolution_rate(Processes(device).device, torch.float32), []
    for name in names:
        with suppress(MetricUnavailable):
            trainee = SupervisedTraining(name, _pixels(growing.SIDE), Enlarging(width=width, batch=batch), **known)
            measured = _steps(trainee, trainee.faces, {0: 1.0}, 1 if quick else 3)
            rows.append(_row(f"{name}, width {width:g}", batch, torch.float32, measured, rate))
    return rows


def convolution_rate(device: torch.device, precision: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations per second of one large 3×3 convolution, forward only: what this machine can do."""
    batch = 8 if device.type == "cpu" else 64
    x = torch.randn(batch, 256, 64, 64, device=device, dtype=precision).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=precision).to(memory_format=torch.channels_last)
    with torch.no_grad():
        (seconds,) = clock.medians([lambda: F.conv2d(x, weight, padding=1)], device, 6)
    return 2 * x.numel() * 256 * 9 / seconds


Measured = tuple[float, float, float]
"""Seconds and operations of a step; seconds that it takes to fetch its images."""


def _row(name: str, batch: int, precision: torch.dtype, measured: Measured, rate: float) -> dict[str, Any]:
    step, operations, loading = measured
    return {
        "training": name,
        "batch": batch,
        "precision": str(precision).removeprefix("torch."),
        "images per second": f"{batch / step:.3g}",
        "loading images": f"{100 * loading / step:.2f} %",
        "TFLOP/s": f"{operations / step / 1e12:.3f}",
        "of the convolution rate": f"{operations / step / rate:.2f}",
    }


def _pixels(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_FACES, side, side, 3), dtype=np.uint8)


def _steps(trainee: Training, load: Callable[[], Any], shares: Mapping[int, float], repeat: int) -> Measured:
    """Time steps of several kinds: the number of one of each, and the share of all steps that are like it."""
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


def _prior(config: Config, processes: Processes, precision: torch.dtype, repeat: int) -> Measured:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # some systems keep mapped files
        path = Path(folder) / "pixels.npy"
        np.save(path, _pixels(config.resolution))
        pixels = np.load(path, mmap_mode="r")
        trainee = PriorTraining(pixels, config, processes, bf16=precision == torch.bfloat16)
        period = lcm(config.r1_interval, config.path_interval)
        kinds = [(i % config.r1_interval == 0, i % config.path_interval == 0) for i in range(period)]
        first = {kind: i for i, kind in reversed([*enumerate(kinds)])}
        shares = {first[kind]: times / period for kind, times in Counter(kinds).items()}
        return _steps(trainee, trainee.real, shares, repeat)


def _patches(
    config: esrgan.Start | esrgan.Config, processes: Processes, precision: torch.dtype, repeat: int
) -> Measured:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (321, 481, 3), dtype=np.uint8) for _ in range(20)]
    given: Any = str(processes.device), precision == torch.bfloat16
    if isinstance(config, esrgan.Start):
        trainee: esrgan.SuperResolution = esrgan.Pretraining(pictures, config, *given)
    else:
        with tempfile.TemporaryDirectory() as start:
            esrgan.Pretraining(pictures, esrgan.Start(patch=config.patch)).snapshot(Path(start))
            trainee = esrgan.Refinement(pictures, config, start, *given)
    return _steps(trainee, trainee.pairs, {0: 1.0}, repeat)


class Operations(TorchDispatchMode):
    """Counts floating-point operations, backward too (PyTorch's own counter fails on gradients of gradients)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operation run, and count it."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result
