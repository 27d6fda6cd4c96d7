"""What supervised trainings compare: features of networks trained on ImageNet; VGG's weights are assets.

Where they are not on this machine EfficientNet-Lite0 stands in, under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import assets, images
from facesr_lib.messages import check_tensors
from facesr_lib.metrics import pretrained
from facesr_lib.networks import perceptual

Maps = Callable[[Tensor], Sequence[Tensor]]
"""Images (N, 3, H, W) in [0, 1] → feature maps (N, C, h, w), coarser and coarser."""


def feature_loss(maps: Maps, x: Tensor, y: Tensor) -> Tensor:
    r"""Squared differences of what an ImageNet network sees, each layer's averaged and all added up.

    .. math:: \sum_i L_{feat/i}, \qquad L_{feat/i} = \frac{1}{W_i H_i} \sum_{x,y}
              (\phi_i(I^{HR})_{x,y} - \phi_i(G(I^{LR}))_{x,y})^2

    ``maps`` is φ, as `block_features` finds it; x and y are restored and target (N, 3, H, W), in [0, 1] → (N,). No
    gradient passes to the target.

    Source: Kim et al. 2019, equation 3; averaged over the channels too, as released. Derived in chapter 8.
    """
    check_tensors("restored and target pictures", "(N, 3, H, W)", x, y)
    with torch.no_grad():
        target = maps(y)
    pairs = zip(maps(x), target, strict=True)
    return torch.stack([(ours.float() - theirs.float()).square().mean((1, 2, 3)) for ours, theirs in pairs]).sum(0)


def block_features() -> tuple[str, Maps]:
    """Find the φ of `feature_loss` on this machine: the last maps of four blocks, at strides 1, 2, 4 and 8.

    Its name, beside it, is "VGG16" where the weights are: ReLUs 1_2, 2_2, 3_3 and 4_3 of the images as they are, as
    released. Else "EfficientNet-Lite0", which a package brings along: other features than the paper's, so the name
    belongs beside every result. It sees the images twice as large, so that its maps are of VGG16's sizes, and they are
    divided by 7, about what they measure on faces. A ``MetricUnavailable`` says that neither is on this machine.
    """
    try:
        perceptual.lpips_file("vgg")
    except assets.AssetMissing:
        pretrained.efficientnet_file()
        return "EfficientNet-Lite0", _block_maps
    return "VGG16", lambda image: perceptual.lpips_network("vgg", str(image.device)).net(image)[:4]


def imagenet_features(stride: Literal[4, 16]) -> tuple[str, Callable[[Tensor], Tensor]]:
    """What an ImageNet network sees of pictures before an activation: ESRGAN's features, and the contextual loss's.

    They are (N, 3, H, W) in [0, 1] → (N, C, H / stride, W / stride); gradients pass. Stride 16 is VGG19's conv5_4, for
    the perceptual loss, 4 its conv3_4, for the contextual loss. Name and errors as `block_features`; EfficientNet-Lite0
    answers by the last of its linear bottlenecks at this stride.
    """
    try:
        network = perceptual.vgg19(8 if stride == 4 else 16)
    except assets.AssetMissing:
        pretrained.efficientnet_file()
        block = 2 if stride == 4 else 10
        return "EfficientNet-Lite0", lambda image: pretrained.efficientnet_maps(image, (block,))[0]
    return "VGG19", lambda image: network.to(image.device)(perceptual.imagenet_input(image))


def feature_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of features, ESRGAN's perceptual loss: (N, C, H, W) twice → (N,)."""
    check_tensors("features", "(N, C, H, W)", x, y)
    return (x - y).abs().mean((1, 2, 3))


def _block_maps(image: Tensor) -> list[Tensor]:
    twice = F.interpolate(images.check_batch(image), scale_factor=2.0, mode="bilinear")
    return [maps / 7 for maps in pretrained.efficientnet_maps(twice, (0, 2, 4, 10))]  # 16, 24, 40 and 112 channels
