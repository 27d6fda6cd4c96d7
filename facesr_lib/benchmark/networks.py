"""How fast networks for faces are on this machine, against their own convolutions, timed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from facesr_lib.benchmark import clock
from facesr_lib.benchmark.enlarging import convolutions
from facesr_lib.devices import pick_device
from facesr_lib.networks.landmarks import FAN, DistilledFAN
from facesr_lib.networks.progressive import ProgressiveGenerator

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "distilled FAN": (DistilledFAN, DistilledFAN.side),
    "FAN-4": (FAN, FAN.side),
    "progressive": (ProgressiveGenerator, 16),
}
"""Name → what makes the network, and the side of the pictures that it is given."""


@torch.no_grad()
def run(
    device: str = "auto", quick: bool = False, networks: Mapping[str, tuple[Callable[[], nn.Module], int]] = NETWORKS
) -> list[dict[str, Any]]:
    """Measure networks with random weights on random pictures, one by one and sixteen at once.

    Returns
    -------
    list of dict
        One row per network and batch size: pictures per second, and the convolutions' own time as a share of the
        network's, with the lowest and highest of the repetitions.
    """
    place, repeat, rows = torch.device(pick_device(device)), 1 if quick else 5, []
    for name, (make, side) in networks.items():
        network = make().to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        for batch in (1, 16):
            x = torch.rand(batch, 3, side, side, device=place).contiguous(memory_format=torch.channels_last)
            look = partial(network, x)
            turns = clock.turns([look, convolutions(network, look)], place, repeat)
            row = {"network": name, "pictures": f"{side}×{side}", "batch": batch}
            row |= {"pictures per second": f"{batch / median(whole for whole, _ in turns):.3g}"}
            rows.append(row | {"of the convolution rate": clock.share([alone / whole for whole, alone in turns])})
    return rows
