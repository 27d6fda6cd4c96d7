"""The "skip" generator: z → w → picture. Chapter 2 walks through this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log2, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from facesr_lib.networks.stylegan2.fast import InPlace, by_channel, from_pixels, kernel_energy, modulated
from facesr_lib.networks.stylegan2.layers import FullyConnected, channels_at, ignore_filters, upsample

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
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x if truncation_psi == 1 else self.w_avg.lerp(x, truncation_psi)


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
        self._kept: dict[Callable[..., Tensor], tuple[list[tuple[int, int]], Tensor]] = {}

    @property
    def frozen(self) -> bool:
        """Whether the weights stay as they are: not in training, not as an image's own copy, not under a compiler."""
        own = isinstance(self.weight, nn.Parameter)
        return own and not self.weight.requires_grad and not torch.compiler.is_compiling()

    def keep(self, make: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
        """``make(*parameters)``, kept from call to call while the weights are frozen.

        Changes in place are noticed, but not through ``.data``, which autograd does not notice either.
        """
        if not self.frozen:
            return make(*parameters)
        state = [(p.data_ptr(), p._version) for p in parameters]
        if make not in self._kept or self._kept[make][0] != state:
            with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor would break later gradients
                self._kept[make] = state, make(*parameters)
        return self._kept[make][1]

    def forward(
        self,
        x: Tensor,
        scale: Tensor,
        w: Tensor,
        noise: Tensor | None,
        matrix: Tensor | None = None,
        constant: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(N, C_in, R, R) times (N, C_in) → (N, C_out, R, R), twice the side if it upsamples, times (N, C_out).

        With a matrix (N, C_out, 3) also that product, (N, R², 3). A constant (C_in, R, R) is what x holds N times.
        """
        if noise is None:
            noise = x.new_zeros(()).expand(1, 1, *self.noise_const.shape)
        offset = torch.stack([self.bias, self.noise_strength.expand_as(self.bias)])
        energy, shared = self.keep(kernel_energy, self.weight), None
        if constant is not None and not constant.requires_grad and self.frozen and len(x) > 1:
            shared = self.keep(by_channel, constant, self.weight)  # one convolution, whatever the number of images
        layer = InPlace.apply if self.frozen else modulated
        return layer(x, scale, self.affine(w), offset, noise.to(x.dtype), self.weight, energy, self.up, matrix, shared)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to three channels, without demodulation.

    With only three outputs per-image weights are cheaper than modulated activations: one small matrix per image. The
    layer that makes the map multiplies it, too, while it is at hand.
    """

    def __init__(self, n_in: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, n_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def matrix(self, w: Tensor) -> Tensor:
        """(N, d) → (N, C, 3)."""
        return (self.weight.flatten(1).t() / sqrt(self.weight.shape[1])) * self.affine(w)[:, :, None]

    def forward(self, product: Tensor) -> Tensor:
        """The map times the matrix, (N, R², 3) → (N, 3, R, R)."""
        return from_pixels(product.add_(self.bias.to(product.dtype)))


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


class Features(NamedTuple):
    """What one block hands to the next: x (N, C, r, r) times scale (N, C), and the picture so far, (N, 3, r, r)."""

    x: Tensor
    scale: Tensor
    image: Tensor | None


class SynthesisNetwork(nn.Module):
    """w → image, from 4² to the full resolution in octaves.

    Attributes
    ----------
    precision : torch.dtype, optional
        Of the feature maps, such as ``torch.bfloat16``; styles and the picture stay as they are. Default: the weights'.
    """

    precision: torch.dtype | None = None

    def __init__(self, w_dim: int, resolution: int, channel_base: int, channel_max: int):
        super().__init__()
        channels = channels_at(resolution, channel_base, channel_max)
        for r, n_out in channels.items():
            self.add_module(f"b{r}", SynthesisBlock(channels.get(r // 2, 0), n_out, w_dim, r))
        self.resolutions = list(channels)

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """b4, b8, ... in order."""
        return [self.get_submodule(f"b{r}") for r in self.resolutions]  # type: ignore[misc]

    @property
    def layers(self) -> list[SynthesisLayer]:
        """Every convolution that takes noise, from coarse to fine: L − 1 of them."""
        return [layer for block in self.blocks for layer in block.layers]

    def forward(self, ws: Tensor, noise_mode: str = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        """Synthesise images from one code per layer.

        Parameters
        ----------
        ws : (N, L, d)
            Codes; L = 2·log2(R) − 2.
        noise_mode : {"const", "random", "none"}
            The maps stored with the network, fresh ones, or none.
        noise : list of (1 or N, 1, R_i, R_i), optional
            One map per layer, coarse to fine; overrides ``noise_mode``.

        Returns
        -------
        (N, 3, R, R), roughly in [−1, 1], not clamped.

        Raises
        ------
        ValueError
            If ``ws`` is not (N, L, d) or ``noise_mode`` is unknown.
        """
        layers = self.layers
        if ws.ndim != 3 or ws.shape[1] != len(layers) + 1 or ws.shape[2] != layers[0].affine.weight.shape[1]:
            expected = f"(N, {len(layers) + 1}, {layers[0].affine.weight.shape[1]})"
            raise ValueError(f"synthesis takes one code per layer, {expected}; got {tuple(ws.shape)}.")
        maps = list(self._noise_maps(ws, noise_mode)) if noise is None else noise
        features, codes = self.start(ws), ws.unbind(1)
        for i in range(len(self.blocks)):
            features = self.grow(features, i, codes, maps)
        assert features.image is not None
        return features.image

    def start(self, w: Tensor) -> Features:
        """The constant, once for each of the codes (N, ...)."""
        x: Tensor = self.blocks[0].const.to(memory_format=torch.contiguous_format).expand(len(w), -1, -1, -1)
        return Features(x.to(self.precision or x.dtype), w.new_ones(x.shape[:2]), None)

    def grow(self, features: Features, i: int, codes: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Features:
        """Block i, with a code (N, d) and a map for every layer of the network."""
        x, scale, image = features
        block, first = self.blocks[i], max(2 * i - 1, 0)  # b4 takes codes 0, 1; b8 takes 1, 2, 3; b16 takes 3, 4, 5
        matrix = block.torgb.matrix(codes[first + len(block.layers)])
        for j, layer in enumerate(block.layers, start=first):
            last, constant = layer is block.conv1, block.const if image is None else None
            x, scale, rgb = layer(x, scale, codes[j], noise[j], matrix if last else None, constant)
        rgb = block.torgb(rgb).to(codes[0].dtype)
        return Features(x, scale, rgb if image is None else upsample(image) + rgb)

    def _noise_maps(self, ws: Tensor, mode: str) -> Iterator[Tensor | None]:
        if mode not in NOISE_MODES:
            raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}; got {mode!r}.")
        for layer in self.layers:
            if mode == "none":
                yield None
            elif mode == "const":
                yield layer.noise_const[None, None]
            else:
                yield torch.randn(len(ws), 1, *layer.noise_const.shape, device=ws.device)


class Generator(nn.Module):
    """StyleGAN2's generator: ``mapping`` (z → w) and ``synthesis`` (w → image).

    Parameters
    ----------
    z_dim, w_dim : int
        Dimensions of the input and of the intermediate latent.
    img_resolution : int
        R, a power of two, at least 4.
    channel_base, channel_max : int
        Resolution r has min(channel_base / r, channel_max) channels.
    num_mapping_layers : int
        Depth of the mapping network.
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
        self.num_ws = 2 * int(log2(img_resolution)) - 2
        self.mapping = MappingNetwork(z_dim, w_dim, num_mapping_layers)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, channel_base, channel_max)

    def forward(self, z: Tensor, truncation_psi: float = 1.0, noise_mode: str = "const") -> Tensor:
        """(N, z_dim) → (N, 3, R, R) in [−1, 1]."""
        w = self.mapping(z, truncation_psi)
        return self.synthesis(w[:, None].expand(-1, self.num_ws, -1), noise_mode)
