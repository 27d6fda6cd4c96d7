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
    # LPIPS cuts torchvision's features into slices, whose layers keep their numbers
    network.net.load_state_dict(
        {name: weights["features." + name.partition(".")[2]] for name in network.net.state_dict()}
    )
    return network.eval().requires_grad_(False).to(device)


@cache
@undisturbed()
def vgg19(convolutions: int) -> nn.Sequential:
    """VGG19's first layers, frozen, up to a convolution *before* its ReLU: the 16th is conv5_4, the 8th conv3_4.

    It takes what `imagenet_input` makes of pictures. ``assets.AssetMissing`` says how to get the weights ("vgg19").
    """
    weights = unpickling.load(assets.checked("vgg19"))
    from torchvision.models import vgg  # takes seconds

    layers = vgg.make_layers(vgg.cfgs["E"])
    last = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)][convolutions - 1]
    network = layers[: last + 1]
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
