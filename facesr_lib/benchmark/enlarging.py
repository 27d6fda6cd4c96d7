"""How fast ESRGAN's generator enlarges a picture, against the same convolutions alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from facesr_lib.benchmark import clock
from facesr_lib.devices import pick_device
from facesr_lib.networks.progressive import EqualisedConvolution
from facesr_lib.networks.rrdb import RRDBNet

SIZES = {"small": (3, 32, 16), "full size": (23, 64, 32)}
"""Blocks, channels, growth."""


@torch.no_grad()
def run(device: str = "auto", quick: bool = False, *, side: int = 128) -> list[dict[str, Any]]:
    """Measure the enlargement of one picture of ``side``².

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "auto".
    quick : bool
        The small network alone.
    side : int

    Returns
    -------
    list of dict
        One row per network: milliseconds; its convolutions' own time as a share of that, with the lowest and highest of
        the repetitions; peak memory.
    """
    place, rows = torch.device(pick_device(device)), []
    for name, size in list(SIZES.items())[: 1 if quick else 2]:
        network = RRDBNet(*size).eval().to(place).to(memory_format=torch.channels_last)
        enlarge = partial(network, torch.rand(1, 3, side, side, device=place))
        turns = clock.turns([enlarge, convolutions(network, enlarge)], place, 3)
        rates = [alone / whole for whole, alone in turns]
        rows.append(
            {
                "RRDBNet": name,
                "picture": f"{side}×{side}",
                "ms": f"{1e3 * median(whole for whole, _ in turns):.0f}",
                "of the convolution rate": clock.share(rates),
                "peak MB": f"{clock.peak_megabytes(enlarge, place):.0f}",
            }
        )
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
