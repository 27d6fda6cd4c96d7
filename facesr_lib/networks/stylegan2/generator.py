"""StyleGAN2's "skip" generator as the paper writes it: z → w → picture. Chapter 2 quotes this file.

What weights that nobody learns allow besides is in `fast`: the same pictures in less time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.messages import check_tensors, choose
from facesr_lib.networks.stylegan2.layers import FullyConnected, blur, channels_at, ignore_filters, leaky_relu, upsample

NOISE_MODES = ("const", "random", "none")


class MappingNetwork(nn.Module):
    """z → w: an MLP that bends the Gaussian into the space in which faces vary smoothly."""

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_layers: int):
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"fc{i}", FullyConnected(z_dim if i == 0 else w_dim, w_dim, activate=True, lr=0.01))
        self.z_dim, self.num_layers = z_dim, num_layers
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """(N, z_dim) → (N, w_dim). ``truncation_psi`` < 1 pulls w towards the mean face, w̄ + ψ(w − w̄)."""
        check_tensors("draws of z", f"(N, {self.z_dim})", z)
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x if truncation_psi == 1 else self.w_avg.lerp(x, truncation_psi)


def modulated_convolution(x: Tensor, s: Tensor, weight: Tensor, *, up: bool = False) -> Tensor:
    """Convolution whose kernels a style scales, output channels brought back to unit variance.

    Taken literally, every image has kernels of its own. But a convolution is linear: to scale a kernel's inputs is to
    scale the activations, and its outputs can wait until after the convolution. So a batch is one convolution.

    Parameters
    ----------
    x, s, weight : (N, C_in, R, R), (N, C_in), (C_out, C_in, 3, 3)
        Features, style, and the kernels that all images share.
    up : bool
        Double the side: zeros between the pixels, and the low-pass filter behind the convolution.

    Returns
    -------
    (N, C_out, R, R), or twice the side with ``up``

    Source: Karras et al. 2020, section 2.2, equations 1 to 3. Derived in chapter 2, "One layer".
    """
    # (1) w'_ijk = s_i w_ijk
    x = convolve(x * s[:, :, None, None].to(x.dtype), weight.to(x.dtype), up=up)
    # (2) σ_j² = Σ_ik w'_ijk² = Σ_i s_i² Σ_k w_ijk²
    variance = s.square() @ weight.square().sum((2, 3)).T  # (N, C_out)
    # (3) w''_ijk = w'_ijk / √(σ_j² + ε)
    return x * (variance + 1e-8).rsqrt()[:, :, None, None].to(x.dtype)


def convolve(x: Tensor, weight: Tensor, *, up: bool) -> Tensor:
    """3×3 convolution; with ``up``, zeros between the pixels first and the low-pass filter behind: twice the side."""
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, C_out, 2R + 1, 2R + 1)
        return blur(x, padding=1, gain=4.0)
    return F.conv2d(x, weight, padding=1)


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution (optionally upsampling), noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(self, n_in: int, n_out: int, w_dim: int, resolution: int, *, up: bool = False):
        super().__init__()
        self.affine = FullyConnected(w_dim, n_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.up = up

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """(N, C_in, R, R), (N, d), (1 or N, 1, R, R) → (N, C_out, R, R); if it upsamples, x has half the side."""
        x = modulated_convolution(x, self.affine(w), self.weight, up=self.up)
        x = x + (noise * self.noise_strength).to(x.dtype)
        return leaky_relu(x + self.bias[:, None, None].to(x.dtype))


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to three channels, without demodulation.

    With only three outputs kernels for each image are cheaper than modulated activations: one small matrix per image.
    """

    def __init__(self, n_in: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, n_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def kernels(self, w: Tensor) -> Tensor:
        """Equation 1 for each image: (N, d) → (N, 3, C)."""
        return self.affine(w)[:, None] * (self.weight.flatten(1) / sqrt(self.weight.shape[1]))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, R, R), (N, d) → (N, 3, R, R)."""
        rgb = self.kernels(w).to(x.dtype) @ x.flatten(2)  # (N, 3, R²)
        return rgb.unflatten(2, x.shape[2:]) + self.bias[:, None, None].to(x.dtype)


class SynthesisBlock(nn.Module):
    """One resolution: the constant (4²) or an upsampling layer, a second layer, and the picture so far."""

    def __init__(self, n_in: int, n_out: int, w_dim: int, resolution: int):
        super().__init__()
        if n_in == 0:
            self.const = nn.Parameter(torch.randn(n_out, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(n_in, n_out, w_dim, resolution, up=True)
        self.conv1 = SynthesisLayer(n_out, n_out, w_dim, resolution)
        self.torgb = ToRGB(n_out, w_dim)

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The block's convolutions that take noise, in order."""
        return [self.conv0, self.conv1] if hasattr(self, "conv0") else [self.conv1]

    def forward(
        self, x: Tensor, image: Tensor | None, codes: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features (N, C_in, r, r) and the picture so far, (N, 3, r, r) → those of twice the side (b4: the same).

        ``codes`` holds (N, d) for each layer and for the colours, ``noise`` a map (1 or N, 1, R, R) for each layer.
        """
        for layer, w, noise_map in zip(self.layers, codes[:-1], noise, strict=True):
            x = layer(x, w, noise_map)
        rgb = self.torgb(x, codes[-1]).to(codes[-1].dtype)
        return x, rgb if image is None else upsample(image) + rgb


class SynthesisNetwork(nn.Module):
    """w → image, from 4² to the full resolution in octaves."""

    b4: SynthesisBlock
    precision: torch.dtype | None = None
    """Of the feature maps, such as ``torch.bfloat16``; styles and the picture keep theirs. Default: the weights'."""

    def __init__(self, w_dim: int, resolution: int, channel_base: int, channel_max: int):
        super().__init__()
        channels = channels_at(resolution, channel_base, channel_max)
        for r, n_out in channels.items():
            self.add_module(f"b{r}", SynthesisBlock(channels.get(r // 2, 0), n_out, w_dim, r))
        self.resolutions, self.num_ws, self.w_dim = list(channels), 2 * len(channels), w_dim

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """b4, b8, ... in order."""
        return [self.get_submodule(f"b{r}") for r in self.resolutions]  # type: ignore[misc]

    @property
    def layers(self) -> list[SynthesisLayer]:
        """Every convolution that takes noise, from coarse to fine: L − 1 of them."""
        return [layer for block in self.blocks for layer in block.layers]

    def forward(self, ws: Tensor, noise_mode: str = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        """Codes (N, L, d), one per layer, L = 2·log2(R) − 2 → images (N, 3, R, R), roughly in [−1, 1], not clamped.

        ``noise_mode`` takes the maps stored with the network ("const"), fresh ones ("random"), or "none"; ``noise``, a
        map (1 or N, 1, R_i, R_i) per layer, coarse to fine, overrides it.
        """
        octaves = self.octaves(ws, noise_mode, noise)
        x, image = self.b4.const.to(self.precision or ws.dtype).expand(len(ws), -1, -1, -1), None
        for block, codes, maps in octaves:
            x, image = block(x, image, codes, maps)
        assert image is not None
        return image

    def octaves(
        self, ws: Tensor, noise_mode: str, noise: Sequence[Tensor] | None
    ) -> Sequence[tuple[SynthesisBlock, Sequence[Tensor], Sequence[Tensor]]]:
        """Each block with its codes and noise; a block's colours share the code of the next one's first layer."""
        check_tensors("codes, one per layer,", f"(N, {self.num_ws}, {self.w_dim})", ws)
        noise = self.noise_maps(noise_mode, len(ws)) if noise is None else noise
        codes, first, octaves = ws.unbind(1), 0, []
        for block in self.blocks:
            last = first + len(block.layers)
            octaves.append((block, codes[first : last + 1], noise[first:last]))
            first = last
        return octaves

    def noise_maps(self, mode: str, n: int) -> list[Tensor]:
        """One map for each layer, (1 or n, 1, R_i, R_i)."""
        own = [layer.noise_const[None, None] for layer in self.layers]
        if choose(mode, NOISE_MODES, "noise mode") == "random":
            return [torch.randn(n, *m.shape[1:], device=m.device) for m in own]
        return own if mode == "const" else [torch.zeros_like(m) for m in own]


class Generator(nn.Module):
    """StyleGAN2's generator: ``mapping`` (z → w) and ``synthesis`` (w → image).

    R, ``img_resolution``, is a power of two, at least 4; resolution r has min(channel_base / r, channel_max) channels.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        img_resolution: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_mapping_layers: int = 8,
    ):
        super().__init__()
        self.register_load_state_dict_pre_hook(ignore_filters)
        self.z_dim, self.w_dim, self.img_resolution = z_dim, w_dim, img_resolution
        self.mapping = MappingNetwork(z_dim, w_dim, num_mapping_layers)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, channel_base, channel_max)
        self.num_ws = self.synthesis.num_ws

    def forward(self, z: Tensor, truncation_psi: float = 1.0, noise_mode: str = "const") -> Tensor:
        """(N, z_dim) → (N, 3, R, R) in [−1, 1]."""
        w = self.mapping(z, truncation_psi)
        return self.synthesis(w[:, None].expand(-1, self.num_ws, -1), noise_mode)
