"""VGG16 as LPIPS sees with it; its ImageNet weights are an asset ("vgg16")."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch

from facesr_lib import assets
from facesr_lib.assets import unpickling

_SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # VGG16's convolutions, between its poolings


@cache
@torch.inference_mode(False)
def lpips_vgg_network() -> Any:
    """LPIPS on VGG16."""
    weights = unpickling.load(assets.checked("vgg16"))
    from lpips import LPIPS

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # torchvision, on how lpips calls it
        network = LPIPS(net="vgg", pnet_rand=True, verbose=False)  # random until the next lines replace every weight
    backbone = {
        f"slice{k}.{i}.{part}": weights[f"features.{i}.{part}"]
        for k, layers in enumerate(_SLICES, start=1)
        for i in layers
        for part in ("weight", "bias")
    }
    network.net.load_state_dict(backbone, strict=True)
    return network.eval().requires_grad_(False)
