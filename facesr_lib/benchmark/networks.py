"""How fast networks are that enlarge a picture or look at a face, against the same convolutions alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from facesr_lib.benchmark import clock
from facesr_lib.devices import pick_device
from facesr_lib.networks.folding import fold_norms
from facesr_lib.networks.landmarks import FAN, DistilledFAN
from facesr_lib.networks.progressive import EqualisedConvolution, ProgressiveGenerator
from facesr_lib.networks.rrdb import RRDBNet
from facesr_lib.networks.supervised import URDGN, VDSR, Enlarger, FSRNet

Networks = Mapping[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]]
NETWORKS: Networks = {
    "distilled FAN": (DistilledFAN, DistilledFAN.side, (1, 16)),
    "FAN-4": (FAN, FAN.side, (1, 16)),
    "progressive": (ProgressiveGenerator, 16, (1, 16)),
    "VDSR": (VDSR, 16, (1, 16)),
    "URDGN": (URDGN, 16, (1, 16)),
    "FSRNet, FSRGAN": (FSRNet, 16, (1, 16)),
    "RRDBNet, small": (partial(RRDBNet, 3, 32, 16), 128, (1,)),
    "RRDBNet": (partial(RRDBNet, 23, 64, 32), 128, (1,)),
}
"""Name → what makes the network, the side of the pictures that it is given, and how many at once."""


@torch.no_grad()
def run(device: str = "auto", quick: bool = False, networks: Networks = NETWORKS) -> list[dict[str, Any]]:
    """Measure networks with random weights on random pictures; ``quick``: once, and not ESRGAN's full size."""
    place, repeat, rows = torch.device(pick_device(device)), 1 if quick else 5, []
    for name, (make, side, batches) in networks.items():
        if quick and name == "RRDBNet":
            continue
        network = make().to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if isinstance(network, ProgressiveGenerator | Enlarger):
            fold_norms(network)  # as `restoration.METHODS` does
        for batch in batches:
            x = torch.rand(batch, 3, side, side, device=place).contiguous(memory_format=torch.channels_last)
            look = partial(getattr(network, "enlarge", network), x)
            turns = clock.turns([look, convolutions(network, look)], place, repeat)
            row = {"network": name, "pictures": f"{side}×{side}", "batch": batch}
            row |= {"pictures per second": f"{batch / median(whole for whole, _ in turns):.3g}"}
            row |= {"of the convolution rate": clock.share([alone / whole for whole, alone in turns])}
            rows.append(row | {"peak MB": f"{clock.peak_megabytes(look, place):.0f}"})
    return rows


def convolutions(network: nn.Module, work: Callable[[], Any]) -> Callable[[], None]:
    """Every convolution that a network runs in ``work``, on inputs of the same sizes, and nothing else."""
    todo: list[tuple[nn.Module, Tensor]] = []
    like: dict[torch.Size, Tensor] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        (x,) = inputs
        todo.append((layer, like.setdefault(x.shape, torch.randn_like(x))))

    kinds = nn.Conv2d, nn.ConvTranspose2d, EqualisedConvolution
    hooks = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, kinds)]
    work()
    for hook in hooks:
        hook.remove()

    def alone() -> None:
        for layer, x in todo:
            layer(x)

    return alone
