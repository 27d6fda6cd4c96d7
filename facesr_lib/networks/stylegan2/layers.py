"""What generator and discriminator share: activation, low-pass filter, equalised linear layer, channel counts."""

from __future__ import annotations

from functools import cache
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def leaky_relu(x: Tensor, gain: float = sqrt(2)) -> Tensor:
    """Leaky ReLU with slope 0.2, times a gain that keeps the variance (√2; 1 where a residual branch halves it)."""
    x = F.leaky_relu(x, 0.2)
    return x * gain if gain != 1 else x


def blur(x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Low-pass filter [1, 3, 3, 1]⊗[1, 3, 3, 1]: (N, C, H, W) → (N, C, (H + 2·padding − 3)/stride, ...)."""
    channels = x.shape[1]
    return F.conv2d(x, _fir(channels, gain, x.dtype, x.device), stride=stride, padding=padding, groups=channels)


def upsample(x: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, then the low-pass filter. (N, C, H, W) → (N, C, 2H, 2W)."""
    channels = x.shape[1]
    return F.conv_transpose2d(x, _fir(channels, 4.0, x.dtype, x.device), stride=2, padding=1, groups=channels)


@cache
@torch.inference_mode(False)
def _fir(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8
    return (taps[:, None] * taps * gain).repeat(channels, 1, 1, 1)


class FullyConnected(nn.Module):
    """Linear layer with an equalised learning rate: weights are drawn from N(0, 1) and scaled at run time."""

    def __init__(self, n_in: int, n_out: int, *, activate: bool = False, lr: float = 1.0, bias_init: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr)
        self.bias = nn.Parameter(torch.full((n_out,), bias_init))
        self.activate, self.lr = activate, lr

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in) → (N, n_out)."""
        x = torch.addmm(self.bias, x, self.weight.t(), beta=self.lr, alpha=self.lr / sqrt(self.weight.shape[1]))
        return leaky_relu(x) if self.activate else x


def ignore_filters(network: nn.Module, state: dict[str, Tensor], *rest: object) -> None:
    """Leave out the low-pass filters that an official state dict holds: they are constants here."""
    for key in [key for key in state if key.endswith("resample_filter")]:
        del state[key]


def channels_at(resolution: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """Channels of each resolution from 4 to ``resolution``."""
    octaves = resolution.bit_length() - 1
    if resolution != 1 << octaves or octaves < 2:
        raise ValueError(f"img_resolution must be a power of two, at least 4; got {resolution}.")
    return {1 << k: min(channel_base >> k, channel_max) for k in range(2, octaves + 1)}
