"""Distances between images as networks trained on ImageNet see them; VGG's weights are assets ("vgg16", "vgg19")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from facesr_lib import assets
from facesr_lib.metrics import pretrained
from facesr_lib.networks import perceptual


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


def imagenet_features(stride: Literal[4, 16]) -> tuple[str, Callable[[Tensor], Tensor]]:
    """What an ImageNet network sees of pictures before an activation: ESRGAN's features, and the contextual loss's.

    Parameters
    ----------
    stride : {4, 16}
        16: VGG19's conv5_4, for the perceptual loss. 4: its conv3_4, for the contextual loss.

    Returns
    -------
    name, features
        "VGG19" where its weights are. Else "EfficientNet-Lite0", which a package brings along: the last of its linear
        bottlenecks at this stride; other features than the paper's, so the name belongs beside every result.
        (N, 3, H, W) in [0, 1] → (N, C, H / stride, W / stride); gradients pass.

    Raises
    ------
    metrics.MetricUnavailable
        Neither is on this machine.
    """
    try:
        network = perceptual.vgg19(8 if stride == 4 else 16)
    except assets.AssetMissing:
        pretrained.efficientnet_file()
        return "EfficientNet-Lite0", partial(pretrained.efficientnet_maps, blocks=3 if stride == 4 else 11)
    return "VGG19", lambda image: network.to(image.device)(perceptual.imagenet_input(image))


def feature_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of features, ESRGAN's perceptual loss: (N, C, H, W) twice → (N,)."""
    return (x - y).abs().mean((1, 2, 3))
