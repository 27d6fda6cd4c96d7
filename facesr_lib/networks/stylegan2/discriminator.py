"""The "resnet" discriminator: picture → how real it looks."""

from __future__ import annotations

from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.messages import check_tensors
from facesr_lib.networks.stylegan2.layers import FullyConnected, blur, channels_at, ignore_filters, leaky_relu


class Convolution(nn.Module):
    """Convolution with an equalised learning rate, optionally halving the resolution behind the low-pass filter."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, down: bool = False, activate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        if activate:
            self.bias = nn.Parameter(torch.zeros(n_out))
        self.down, self.activate = down, activate

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """(N, C_in, R, R) → (N, C_out, R, R), half the side with ``down``; the output is multiplied by ``gain``."""
        kernel = self.weight.shape[-1]
        weight = (self.weight / sqrt(prod(self.weight.shape[1:]))).to(x.dtype)
        if self.down and kernel == 1:  # filtering and halving first saves three quarters of the 1×1 convolution
            x = F.conv2d(blur(x, padding=1, stride=2), weight * gain)
        elif self.down:
            x = F.conv2d(blur(x, padding=2), weight, stride=2)
        else:
            x = F.conv2d(x, weight, padding=kernel // 2)
        return leaky_relu(x + self.bias[:, None, None].to(x.dtype), sqrt(2) * gain) if self.activate else x


class DiscriminatorBlock(nn.Module):
    """Residual block: two 3×3 convolutions, half the resolution, and a 1×1 skip."""

    def __init__(self, n_in: int, n_out: int, *, from_rgb: bool):
        super().__init__()
        if from_rgb:
            self.fromrgb = Convolution(3, n_in, 1)
        self.conv0 = Convolution(n_in, n_in, 3)
        self.conv1 = Convolution(n_in, n_out, 3, down=True)
        self.skip = Convolution(n_in, n_out, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, R, R) → (N, C_out, R/2, R/2); the first block takes the image itself."""
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        return self.skip(x, gain=sqrt(0.5)) + self.conv1(self.conv0(x), gain=sqrt(0.5))


class DiscriminatorEpilogue(nn.Module):
    """At 4²: append how much the batch varies, one convolution, two linear layers, one number."""

    def __init__(self, channels: int, group_size: int):
        super().__init__()
        self.group_size = group_size
        self.conv = Convolution(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * 16, channels, activate=True)
        self.out = FullyConnected(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 4, 4) → (N, 1)."""
        x = torch.cat([x, minibatch_std(x, self.group_size)], 1)
        return self.out(self.fc(self.conv(x).flatten(1)))


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Mean standard deviation over a group of images, as one more channel: (N, C, H, W) → (N, 1, H, W).

    The only place where an image's score depends on its batch-mates; with groups of one it is the constant 1e-4.
    Groups hold ``group_size`` images, or the largest smaller number that divides the batch.
    """
    if not len(x):
        return x[:, :1]
    group = next(g for g in range(min(group_size, len(x)), 0, -1) if len(x) % g == 0)
    y = x.unflatten(0, (group, -1))  # (group, N / group, C, H, W)
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (N / group,)
    return std.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])


class Discriminator(nn.Module):
    """StyleGAN2's discriminator: image in [−1, 1] → realness logit (N, 1).

    Parameters as in `Generator`; ``group_size`` images share one minibatch standard deviation, 1 scores every image on
    its own.
    """

    precision: torch.dtype | None = None
    """Of the feature maps above 4², such as ``torch.bfloat16``. Default: the image's."""

    def __init__(self, img_resolution: int, channel_base: int = 32768, channel_max: int = 512, *, group_size: int = 4):
        super().__init__()
        self.register_load_state_dict_pre_hook(ignore_filters)
        self.img_resolution = img_resolution
        channels = channels_at(img_resolution, channel_base, channel_max)
        self.resolutions = list(channels)[:0:-1]  # R, R/2, ..., 8
        for r in self.resolutions:
            self.add_module(f"b{r}", DiscriminatorBlock(channels[r], channels[r // 2], from_rgb=r == img_resolution))
        self.b4 = DiscriminatorEpilogue(channels[4], group_size)

    def features(self, x: Tensor, at: int | None = None) -> list[Tensor]:
        """Output of every residual block, from fine (N, C, R/2, R/2) to coarse (N, C, 4, 4).

        ``x`` is an image; with ``at``, the feature map (N, C, at, at) that enters the block of that resolution.
        """
        if at is None:
            check_tensors("images", f"(N, 3, {self.img_resolution}, {self.img_resolution})", x)
        x, features = x.to(self.precision or x.dtype), []
        for r in self.resolutions[self.resolutions.index(at or self.img_resolution) :]:
            x = self.get_submodule(f"b{r}")(x)
            features.append(x)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, R, R) in [−1, 1] → (N, 1)."""
        return self.b4(self.features(image)[-1].to(image.dtype))
