"""How fast networks train on this machine, and how much of that is waiting for images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
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
from facesr_lib.training import esrgan
from facesr_lib.training.processes import Processes
from facesr_lib.training.stylegan2 import Config, PriorTraining

CONFIGURATIONS: dict[str, Config | esrgan.Start] = {
    "64×64": Config(),
    "128×128": Config(resolution=128),
    "ESRGAN's first stage": esrgan.Start(),
}
_FACES = 900


def run(
    device: str = "auto",
    quick: bool = False,
    *,
    configurations: Mapping[str, Config | esrgan.Start] = CONFIGURATIONS,
    precision: torch.dtype = torch.bfloat16,
) -> list[dict[str, Any]]:
    """Measure training steps on random pixels: a prior's, read from a file as those of real faces are, and ESRGAN's.

    A prior's penalties come on some steps only. So each kind of step (with and without either) is timed by itself, and
    the kinds are averaged in the proportion in which they come.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "auto".
    quick : bool
        One timing of each kind of step instead of three.
    configurations : mapping of str to Config or esrgan.Start
        By default what ``facesr train prior --resolution 64`` and ``128`` and ``facesr train esrgan-start`` train.
    precision : torch.dtype
        Of the convolutions.

    Returns
    -------
    list of dict
        One row per configuration: images, or patches, per second; share of a step that it takes to fetch real ones
        (with the copy to the device, or with what makes patches small); arithmetic rate, of convolutions and matrix
        products as PyTorch counts them; and that as a share of `convolution_rate`.
    """
    processes, repeat = Processes(device), 1 if quick else 3
    rate, rows = convolution_rate(processes.device, precision), []
    for name, config in configurations.items():
        measure: Any = _patches if isinstance(config, esrgan.Start) else _prior
        step, operations, loading = measure(config, processes, precision, repeat)
        rows.append(
            {
                "training": name,
                "batch": config.batch,
                "precision": str(precision).removeprefix("torch."),
                "images per second": f"{config.batch / step:.1f}",
                "loading images": f"{100 * loading / step:.2f} %",
                "TFLOP/s": f"{operations / step / 1e12:.3f}",
                "of the convolution rate": f"{operations / step / rate:.2f}",
            }
        )
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


def _prior(config: Config, processes: Processes, precision: torch.dtype, repeat: int) -> Measured:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # some systems keep mapped files
        path = Path(folder) / "pixels.npy"
        shape = (_FACES, config.resolution, config.resolution, 3)
        np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        trainee = PriorTraining(np.load(path, mmap_mode="r"), config, processes, precision)
        period = lcm(config.r1_interval, config.path_interval)
        kinds = Counter((i % config.r1_interval == 0, i % config.path_interval == 0) for i in range(period))
        first = {(i % config.r1_interval == 0, i % config.path_interval == 0): i for i in reversed(range(period))}
        step = operations = 0.0
        for kind, times in kinds.items():

            def once(index: int = first[kind]) -> None:
                trainee.images_seen = index * config.batch  # makes the next step one of this kind
                trainee.step()

            with Operations() as counted:
                once()  # warms up, too
            operations += counted.total * times / period
            step += median(clock.seconds(once, processes.device) for _ in range(repeat)) * times / period
        loading = median(clock.seconds(trainee.real, processes.device) for _ in range(20))
    return step, operations, loading


def _patches(config: esrgan.Start, processes: Processes, precision: torch.dtype, repeat: int) -> Measured:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (321, 481, 3), dtype=np.uint8) for _ in range(20)]
    trainee = esrgan.Pretraining(pictures, config, str(processes.device), precision == torch.bfloat16)
    with Operations() as counted:
        trainee.step()
    step, loading = clock.medians([trainee.step, trainee.pairs], processes.device, repeat)
    return step, counted.total, loading


class Operations(TorchDispatchMode):
    """Counts floating-point operations, backward too (PyTorch's own counter fails on gradients of gradients)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operation run, and count it."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result
