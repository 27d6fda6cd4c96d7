"""Distances between images as networks trained on ImageNet see them; VGG16's weights are an asset ("vgg16")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import assets
from facesr_lib.metrics import pretrained
from facesr_lib.networks import perceptual

Maps = Callable[[Tensor], Sequence[Tensor]]
"""Images (N, 3, H, W) in [0, 1] → feature maps (N, C, h, w), coarser and coarser."""


def lpips_vgg(x: Tensor, y: Tensor) -> Tensor:
    """LPIPS v0.1 on VGG16, differentiable: BRGM's perceptual term.

    Parameters
    ----------
    x, y : (N, 3, H, W)
        In [0, 1], at least 16 × 16.

    Returns
    -------
    (N,)

    Raises
    ------
    assets.AssetMissing, ValueError
        If VGG16's weights are not on this machine; if the images are too small.

    Notes
    -----
    Source: Zhang et al. 2018, the package lpips.
    """
    return _network_for(x)(x, y, normalize=True).flatten()


def vgg_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of VGG16's last features: mGANprior's perceptual term. As `lpips_vgg` otherwise."""
    network = _network_for(x)
    ours, theirs = (network.net(network.scaling_layer(2 * image - 1))[-1] for image in (x, y))
    return (ours - theirs).abs().mean((1, 2, 3))


def _network_for(x: Tensor) -> Any:
    if min(x.shape[2:]) < 16:
        raise ValueError(
            f"VGG16 needs at least 16×16 pixels; got {x.shape[2]}×{x.shape[3]}. Set perceptual to None to search "
            "without it, which is another method."
        )
    return perceptual.lpips_network("vgg").to(x.device)


def feature_loss(maps: Maps, x: Tensor, y: Tensor) -> Tensor:
    r"""Squared differences of what an ImageNet network sees, each layer's averaged and all added up.

    .. math:: \sum_i L_{feat/i}, \qquad L_{feat/i} = \frac{1}{W_i H_i} \sum_{x,y}
              (\phi_i(I^{HR})_{x,y} - \phi_i(G(I^{LR}))_{x,y})^2

    Parameters
    ----------
    maps : Maps
        φ, as `block_features` finds it.
    x, y : (N, 3, H, W)
        Restored and target, in [0, 1]; no gradient passes to the target.

    Returns
    -------
    (N,)

    Notes
    -----
    Source: Kim et al. 2019, equation 3; averaged over the channels too, as released. Derived in chapter 8.
    """
    with torch.no_grad():
        target = maps(y)
    pairs = zip(maps(x), target, strict=True)
    return torch.stack([(ours.float() - theirs.float()).square().mean((1, 2, 3)) for ours, theirs in pairs]).sum(0)


def block_features() -> tuple[str, Maps]:
    """Find the φ of `feature_loss` on this machine: the last maps of four blocks, at strides 1, 2, 4 and 8.

    Returns
    -------
    name, maps
        "VGG16" where its weights are: ReLUs 1_2, 2_2, 3_3 and 4_3 of the images as they are, as released. Else
        "EfficientNet-Lite0", which a package brings along: other features than the paper's, so the name belongs beside
        every result. It sees the images twice as large, so that its maps are of VGG16's sizes, and they are divided by
        7, about what they measure on faces.

    Raises
    ------
    metrics.MetricUnavailable
        Neither is on this machine.
    """
    try:
        perceptual.lpips_file("vgg")
    except assets.AssetMissing:
        pretrained.efficientnet_file()
        return "EfficientNet-Lite0", _efficientnet_maps
    return "VGG16", lambda image: perceptual.lpips_network("vgg").to(image.device).net(image)[:4]


def _efficientnet_maps(image: Tensor) -> list[Tensor]:
    network: Any = pretrained.efficientnet().to(image.device)
    x = (F.interpolate(image, scale_factor=2.0, mode="bilinear") * 255 - 127) / 128
    x = network._swish(network._bn0(network._conv_stem(x.contiguous(memory_format=torch.channels_last))))
    maps = []
    for i, block in enumerate(network._blocks[:11]):
        x = block(x)
        if i in (0, 2, 4, 10):  # the last of each stride: 16, 24, 40 and 112 channels
            maps.append(x / 7)
    return maps
