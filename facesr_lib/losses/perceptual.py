"""Distances between images as VGG16 sees them; its ImageNet weights are an asset ("vgg16")."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from facesr_lib.messages import check_tensors
from facesr_lib.networks import perceptual


def lpips_vgg(x: Tensor, y: Tensor) -> Tensor:
    """LPIPS v0.1 on VGG16, differentiable: BRGM's perceptual term. Source: Zhang et al. 2018, the package lpips.

    Images (N, 3, H, W) twice, in [0, 1], at least 16×16 → (N,); an ``AssetMissing`` says how to get VGG16's weights.
    """
    return _network_for(x, y)(x, y, normalize=True).flatten()


def vgg_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of VGG16's last features: mGANprior's perceptual term. As `lpips_vgg` otherwise."""
    network = _network_for(x, y)
    ours, theirs = (network.net(network.scaling_layer(2 * image - 1))[-1] for image in (x, y))
    return (ours - theirs).abs().mean((1, 2, 3))


def _network_for(x: Tensor, y: Tensor) -> Any:
    check_tensors("pictures", "(N, 3, H, W)", x, y)
    if min(x.shape[2:]) < 16:
        way = "Set perceptual to None to search without it, which is another method."
        raise ValueError(f"VGG16 needs at least 16×16 pixels; got {x.shape[3]}×{x.shape[2]}. {way}")
    return perceptual.lpips_network("vgg", str(x.device))
