"""StyleGAN2's generator ("skip") and discriminator ("resnet"), in plain PyTorch.

Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*. Parameter names are those of the official
PyTorch release, so that its state dicts load as they are. Chapter 2 walks through this file.

Shapes: N images, L synthesis layers, d dimensions of w, C channels, R the image's side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import log2, prod, sqrt
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.networks import checkpoints

NOISE_MODES = ("const", "random", "none")


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


def _fir(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8
    return (taps[:, None] * taps * gain).expand(channels, 1, 4, 4)


class FullyConnected(nn.Module):
    """Linear layer with an equalised learning rate: weights are drawn from N(0, 1) and scaled at run time."""

    def __init__(self, n_in: int, n_out: int, *, activate: bool = False, lr: float = 1.0, bias_init: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr)
        self.bias = nn.Parameter(torch.full((n_out,), bias_init))
        self.activate, self.lr = activate, lr

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in) → (N, n_out)."""
        x = F.linear(x, self.weight * (self.lr / sqrt(self.weight.shape[1])), self.bias * self.lr)
        return leaky_relu(x) if self.activate else x


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
        self._energy: tuple[tuple[int, int], Tensor] | None = None

    def energy(self) -> Tensor:
        """Sum of each kernel's squares, (C_out, C_in); kept from call to call while the weights are frozen."""
        if self.weight.requires_grad:
            return self.weight.square().sum((2, 3))
        key = (self.weight.data_ptr(), self.weight._version)
        if self._energy is None or self._energy[0] != key:
            self._energy = key, self.weight.square().sum((2, 3))
        return self._energy[1]

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """(N, C_in, R, R) → (N, C_out, R, R), twice the side if the layer upsamples.

        Modulation scales the *activations* before the convolution, demodulation after it: the same result as per-image
        weights (equations 1 and 3 of the paper), without making them.
        """
        style = self.affine(w)  # (N, C_in)
        demodulate = (style.square() @ self.energy().t() + 1e-8).rsqrt()  # (N, C_out)
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1).to(x.dtype), stride=2)  # (N, C_out, 2R + 1, 2R + 1)
            x = blur(x, padding=1, gain=4.0)
        else:
            x = F.conv2d(x, self.weight.to(x.dtype), padding=1)
        # √2, the gain of the leaky ReLU, commutes with it: it is folded into the small factors instead of the big map.
        x = x * (demodulate * sqrt(2))[:, :, None, None].to(x.dtype)
        if noise is not None:
            x.add_((noise * (self.noise_strength * sqrt(2))).to(x.dtype))
        return F.leaky_relu_(x.add_((self.bias * sqrt(2))[:, None, None].to(x.dtype)), 0.2)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to three channels, without demodulation.

    With only three outputs per-image weights are cheaper than modulated activations: one small matrix per image.
    """

    def __init__(self, n_in: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, n_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, R, R) → (N, 3, R, R)."""
        style = self.affine(w) / sqrt(self.weight.shape[1])  # (N, C)
        matrix = self.weight.flatten(1) * style[:, None]  # (N, 3, C)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, R², C), a view where x is channels_last
        rgb = torch.baddbmm(self.bias.to(x.dtype), pixels, matrix.mT.to(x.dtype))  # (N, R², 3)
        return rgb.mT.unflatten(2, x.shape[2:])


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
        maps = iter(self._noise_maps(ws, noise_mode) if noise is None else noise)

        x: Tensor = self.blocks[0].const.to(memory_format=torch.contiguous_format).expand(len(ws), -1, -1, -1)
        x = x.to(self.precision or x.dtype)
        image: Tensor | None = None
        for i, block in enumerate(self.blocks):
            first = max(2 * i - 1, 0)  # b4 takes codes 0, 1; b8 takes 1, 2, 3; b16 takes 3, 4, 5; ...
            for j, layer in enumerate(block.layers):
                x = layer(x, ws[:, first + j], next(maps))
            rgb = block.torgb(x, ws[:, first + len(block.layers)]).to(ws.dtype)
            image = rgb if image is None else upsample(image) + rgb
        assert image is not None
        return image

    def _noise_maps(self, ws: Tensor, mode: str) -> Iterator[Tensor | None]:
        if mode not in NOISE_MODES:
            raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}; got {mode!r}.")
        for layer in self.layers:
            if mode == "none":
                yield None
            elif mode == "const":
                yield layer.noise_const
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
        self.z_dim, self.w_dim, self.img_resolution = z_dim, w_dim, img_resolution
        self.num_ws = 2 * int(log2(img_resolution)) - 2
        self.mapping = MappingNetwork(z_dim, w_dim, num_mapping_layers)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, channel_base, channel_max)

    def forward(self, z: Tensor, truncation_psi: float = 1.0, noise_mode: str = "const") -> Tensor:
        """(N, z_dim) → (N, 3, R, R) in [−1, 1]."""
        w = self.mapping(z, truncation_psi)
        return self.synthesis(w[:, None].expand(-1, self.num_ws, -1), noise_mode)


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
    group = next(g for g in range(min(group_size, len(x)), 0, -1) if len(x) % g == 0)
    y = x.unflatten(0, (group, -1))  # (group, N / group, C, H, W)
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (N / group,)
    return std.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])


class Discriminator(nn.Module):
    """StyleGAN2's discriminator: image in [−1, 1] → realness logit (N, 1).

    Parameters
    ----------
    img_resolution, channel_base, channel_max : int
        As in `Generator`.
    group_size : int
        Images that share one minibatch standard deviation; 1 scores every image on its own.

    Attributes
    ----------
    precision : torch.dtype, optional
        Of the feature maps above 4², such as ``torch.bfloat16``. Default: the image's.
    """

    precision: torch.dtype | None = None

    def __init__(self, img_resolution: int, channel_base: int = 32768, channel_max: int = 512, *, group_size: int = 4):
        super().__init__()
        self.img_resolution = img_resolution
        channels = channels_at(img_resolution, channel_base, channel_max)
        self.resolutions = list(channels)[:0:-1]  # R, R/2, ..., 8
        for r in self.resolutions:
            self.add_module(f"b{r}", DiscriminatorBlock(channels[r], channels[r // 2], from_rgb=r == img_resolution))
        self.b4 = DiscriminatorEpilogue(channels[4], group_size)

    def features(self, image: Tensor) -> list[Tensor]:
        """Output of every residual block, from fine (N, C, R/2, R/2) to coarse (N, C, 4, 4)."""
        if image.shape[1:] != (3, self.img_resolution, self.img_resolution):
            expected = f"(N, 3, {self.img_resolution}, {self.img_resolution})"
            raise ValueError(f"the discriminator takes images {expected}; got {tuple(image.shape)}.")
        x, features = image.to(self.precision or image.dtype), []
        for r in self.resolutions:
            x = self.get_submodule(f"b{r}")(x)
            features.append(x)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, R, R) in [−1, 1] → (N, 1)."""
        return self.b4(self.features(image)[-1].to(image.dtype))


def channels_at(resolution: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """Channels of each resolution from 4 to ``resolution``."""
    octaves = resolution.bit_length() - 1
    if resolution != 1 << octaves or octaves < 2:
        raise ValueError(f"img_resolution must be a power of two, at least 4; got {resolution}.")
    return {1 << k: min(channel_base >> k, channel_max) for k in range(2, octaves + 1)}


# --- reading weights ------------------------------------------------------------------------------------------------


def load(path: str | Path) -> tuple[Generator, Discriminator | None]:
    """Read a StyleGAN2 checkpoint without executing anything in it.

    Parameters
    ----------
    path
        ``.safetensors`` with keys ``G.*`` and optionally ``D.*``, the official PyTorch release's ``.pkl``
        (its moving average ``G_ema`` is taken), or a rosinality-style ``.pt``.

    Returns
    -------
    generator, discriminator
        In eval mode on the CPU, float32; sizes follow from the weights. ``None`` if the file holds no discriminator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is corrupt, refuses to be read safely, or holds no StyleGAN2 generator.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    try:
        g_state, d_state = checkpoints.read_stylegan2(path)
        return _build_generator(g_state).eval(), _build_discriminator(d_state).eval() if d_state else None
    except (KeyError, IndexError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} holds no StyleGAN2 checkpoint that can be read: {error}.") from error


def _build_generator(state: dict[str, Tensor]) -> Generator:
    channels = _channels(state, r"synthesis\.b(\d+)\.conv1\.bias")
    generator = Generator(
        z_dim=state["mapping.fc0.weight"].shape[1],
        w_dim=state["mapping.fc0.weight"].shape[0],
        img_resolution=max(channels),
        channel_base=max(channels) * channels[max(channels)],
        channel_max=max(channels.values()),
        num_mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.bias", key)) for key in state),
    )
    return _load_strictly(generator, state)


def _build_discriminator(state: dict[str, Tensor]) -> Discriminator:
    channels = _channels(state, r"b(\d+)\.conv0\.bias")
    base = max(channels) * channels[max(channels)]
    return _load_strictly(Discriminator(max(channels), base, state["b4.fc.bias"].shape[0]), state)


def _channels(state: dict[str, Tensor], pattern: str) -> dict[int, int]:
    matches = {key: re.fullmatch(pattern, key) for key in state}
    found = {int(match[1]): len(state[key]) for key, match in matches.items() if match}
    if not found:
        raise KeyError(f"no parameter is named like {pattern}")
    return found


def _load_strictly(network: nn.Module, state: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    wanted = network.state_dict()
    kept = {k: v.float() for k, v in state.items() if not k.endswith("resample_filter")}
    for key in wanted.keys() & kept.keys():  # rosinality keeps singletons: (1, C, 1, 1) biases, (1,) strengths
        if kept[key].numel() == wanted[key].numel():
            kept[key] = kept[key].reshape(wanted[key].shape)
    network.load_state_dict(kept, strict=True)
    return network
