"""What frozen weights allow: a normalisation becomes part of the convolution before it."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(network: nn.Module, ordered: type[nn.Module] = nn.Sequential) -> nn.Module:
    """Fold a network's batch normalisations into the convolutions before them; the same answers, but for rounding.

    The network is changed: in evaluation mode for good, with other names in its state dict. ``ordered`` are the layers
    whose parts run one after the other, as they were registered, and are seen by nobody else.
    """
    # γ (W x + b − μ) / σ + β = (γ W / σ) x + γ (b − μ) / σ + β
    for layer in [each for each in network.eval().modules() if isinstance(each, ordered)]:
        for (before, convolution), (name, norm) in pairwise([*layer.named_children()]):
            if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(layer, before, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(layer, name, nn.Identity())
    return network
