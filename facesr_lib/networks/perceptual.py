"""AlexNet and VGG16 as LPIPS sees with them; their ImageNet weights are assets."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from facesr_lib import assets
from facesr_lib.assets import unpickling

Backbone = Literal["alex", "vgg"]

_ASSETS = {"alex": "alexnet", "vgg": "vgg16"}
_CONVOLUTIONS = {  # torchvision's numbers of the layers in each of LPIPS's slices
    "alex": ((0,), (3,), (6,), (8,), (10,)),
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
}


def lpips_file(backbone: Backbone) -> Path:
    """Find and check the weights of a backbone; ``assets.AssetMissing`` says how to get them."""
    return assets.checked(_ASSETS[backbone])


@cache
@torch.inference_mode(False)
def lpips_network(backbone: Backbone) -> Any:
    """LPIPS v0.1 (Zhang et al. 2018), on the CPU and frozen: it takes images in [−1, 1]."""
    weights = unpickling.load(lpips_file(backbone))
    from lpips import LPIPS

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # torchvision, on how lpips calls it
        network = LPIPS(net=backbone, pnet_rand=True, verbose=False)  # random until the next lines replace every weight
    own = {
        f"slice{k}.{i}.{part}": weights[f"features.{i}.{part}"]
        for k, layers in enumerate(_CONVOLUTIONS[backbone], start=1)
        for i in layers
        for part in ("weight", "bias")
    }
    network.net.load_state_dict(own, strict=True)
    return network.eval().requires_grad_(False)
