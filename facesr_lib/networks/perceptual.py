"""AlexNet and VGG16 as LPIPS sees with them, and VGG19 as ESRGAN does; their ImageNet weights are assets."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facesr_lib import assets, images
from facesr_lib.assets import unpickling
from facesr_lib.devices import undisturbed

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
@undisturbed()
def lpips_network(backbone: Backbone, device: str = "cpu") -> Any:
    """LPIPS v0.1 (Zhang et al. 2018), frozen, one for each device: it takes images in [−1, 1]."""
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
    return network.eval().requires_grad_(False).to(device)


_VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512)


@cache
@undisturbed()
def vgg19(convolutions: int) -> nn.Sequential:
    """VGG19's first layers, frozen, up to a convolution *before* its ReLU: the 16th is conv5_4, the 8th conv3_4.

    It takes what `imagenet_input` makes of pictures. ``assets.AssetMissing`` says how to get the weights ("vgg19").
    """
    weights = unpickling.load(assets.checked("vgg19"))
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG19:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels, convolutions = width, convolutions - 1
        else:
            layers.append(nn.MaxPool2d(2))
        if convolutions == 0:
            break
    network = nn.Sequential(*layers[:-1])
    network.load_state_dict({name: weights[f"features.{name}"] for name in network.state_dict()})
    return network.eval().requires_grad_(False)


def imagenet_input(image: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] → what torchvision's networks see: less ImageNet's mean, over its deviation."""
    mean, deviation = _imagenet(images.check_batch(image).device)
    return (image - mean) / deviation


@cache
@undisturbed()
def _imagenet(device: torch.device) -> Tensor:
    return torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=device)[:, :, None, None]
