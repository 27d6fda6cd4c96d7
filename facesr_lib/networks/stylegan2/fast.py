"""What `SynthesisNetwork` computes, in fewer passes over memory, for weights that nobody learns: what a search runs.

- Demodulation is positive, so it commutes with the leaky ReLU. Together with that one's gain, √2, it is left to whoever
  reads the map: each layer hands on its activations and one factor per channel.
- What depends on the weights alone is made once: the kernels' energies, the kernels as the convolutions read them, and
  the convolution of the constant, which for each image is a matrix times its style.
- Beside its convolutions a search waits for memory, so the gradient is written by hand: bias and noise are one matrix
  product, and so are the sums over the pixels, where autograd's own rules would first write a map of products; the
  colours are made while the map is at hand, and the style scales the gradient where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from facesr_lib.networks.stylegan2.generator import SynthesisBlock, SynthesisLayer, SynthesisNetwork, convolve
from facesr_lib.networks.stylegan2.layers import blur, upsample


class Features(NamedTuple):
    """What a block hands to the next: x (N, C, r, r) times scale (N, C), and the picture so far, (N, 3, r, r)."""

    x: Any = None
    scale: Any = None
    image: Any = None


class FastSynthesis:
    """A synthesis network's pictures, and their gradients with respect to codes and noise.

    Weights that change in place are noticed, but not through ``.data``, which autograd does not notice either. To learn
    weights, or to differentiate twice, `SynthesisNetwork` itself is the way.
    """

    def __init__(self, network: SynthesisNetwork):
        self.network = network
        self._kept: dict[SynthesisLayer, tuple[object, tuple[Tensor, Tensor, Tensor]]] = {}

    def __call__(self, ws: Tensor, noise_mode: str = "const", noise: Sequence[Tensor] | None = None) -> Tensor:
        """As `SynthesisNetwork.forward`."""
        features = Features()
        for block, codes, maps in self.network.octaves(ws, noise_mode, noise):
            features = self.grow(block, features, codes, maps)
        return features.image

    def grow(
        self, block: SynthesisBlock, features: Features, codes: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> Features:
        """As `SynthesisBlock.forward`; b4 begins with ``Features()``."""
        x, scale, image = features
        matrix = block.torgb.kernels(codes[-1]).mT  # (N, C, 3)
        for layer, w, noise_map in zip(block.layers, codes[:-1], noise, strict=True):
            kernels, energy, offset = self._frozen(layer)
            style, precision = layer.affine(w), self.network.precision or w.dtype
            sigma = (style.square() @ energy.T + 1e-8).sqrt()  # (N, C_out), equation 2
            if x is None:
                x = from_pixels((style @ kernels).to(precision).unflatten(1, (-1, len(energy))))
            else:
                x = Convolution.apply(x, style * scale, kernels, layer.up)
            # equation 3 divides x by sigma: bias and noise are multiplied with it, and who reads x divides
            added, scale = (offset * sigma[:, None]).to(precision), sqrt(2) / sigma  # (N, 2, C_out), (N, C_out)
            colours = (matrix * scale[:, :, None]).to(precision) if layer is block.conv1 else None
            x, rgb = Activation.apply(x, noise_map.to(precision), added, colours)
        rgb = from_pixels(rgb + block.torgb.bias.to(precision)).to(matrix.dtype)
        return Features(x, scale, rgb if image is None else upsample(image) + rgb)

    def _frozen(self, layer: SynthesisLayer) -> tuple[Tensor, Tensor, Tensor]:
        """What a layer's weights give for all images, kept from call to call until they change.

        The kernels as the convolution reads them, or for b4 a matrix (C_in, R²·C_out); the sum of each kernel's
        squares, (C_out, C_in); bias and strength of the noise, (2, C_out).
        """
        const, precision = self.network.b4.const, self.network.precision or layer.weight.dtype
        parameters = layer.weight, layer.bias, layer.noise_strength, const
        state = precision, [(p.data_ptr(), p._version, p.requires_grad) for p in parameters]
        if layer in self._kept and self._kept[layer][0] == state:
            return self._kept[layer][1]
        if any(p.requires_grad for p in parameters):
            raise ValueError(
                "the generator's weights are to be learned, and the fast network gives them no gradient: freeze them "
                "with generator.requires_grad_(False), or call generator.synthesis."
            )
        with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor would break later gradients
            weight = layer.weight.to(precision)
            if layer is self.network.b4.conv1:
                windows = F.unfold(const[:, None], 3, padding=1)  # (C_in, 9, R²)
                kernels = (windows.mT @ layer.weight.permute(1, 2, 3, 0).flatten(1, 2)).flatten(1)
            elif layer.up:
                kernels = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1)
            else:
                kernels = weight.contiguous(memory_format=torch.channels_last)
            offset = torch.stack([layer.bias, layer.noise_strength.expand_as(layer.bias)])
            self._kept[layer] = state, (kernels, layer.weight.square().sum((2, 3)), offset)
        return self._kept[layer][1]


class Convolution(torch.autograd.Function):
    """Convolve a map whose channels are scaled, (N, C_in, R, R) times (N, C_in)."""

    @staticmethod
    def forward(ctx, x, factor, weight, up):  # type: ignore[no-untyped-def]  # noqa: D102
        ctx.save_for_backward(x, factor, weight)
        ctx.up = up
        return convolve(x * factor[..., None, None].to(x.dtype), weight, up=up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: D102
        x, factor, weight = ctx.saved_tensors
        if ctx.up:
            grad = blur(grad, padding=2, gain=4.0)  # a symmetric filter, backwards: itself, padded to the other size
            weight, stride, padding = weight.transpose(0, 1), [2, 2], [0, 0]
        else:
            stride, padding = [1, 1], [1, 1]
        grad, _, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, [1, 1], ctx.up, [0, 0], 1, [True, False, False]
        )
        of_factor = (grad * x).sum((2, 3), dtype=factor.dtype)
        return grad.mul_(factor[..., None, None].to(x.dtype)), of_factor, None, None


class Activation(torch.autograd.Function):
    """Add bias and noise, leaky ReLU without its gain, and the colours (N, R², 3) if a matrix (N, C, 3) makes them.

    The map is a convolution's output, which nobody else needs: it is overwritten.
    """

    @staticmethod
    def forward(ctx, x, noise, added, matrix):  # type: ignore[no-untyped-def]  # noqa: D102
        patterns = torch.cat([torch.ones_like(noise), noise], 1).flatten(2)  # (N, 2, R²): of the bias, of the strength
        flat = pixels(x).baddbmm_(patterns.mT.expand(len(x), -1, -1), added)  # (N, R², C)
        x = from_pixels(F.leaky_relu_(flat, 0.2))
        ctx.save_for_backward(x, patterns, added, matrix)
        ctx.set_materialize_grads(False)
        ctx.noise_shape = noise.shape
        return x, None if matrix is None else flat @ matrix

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, of_rgb):  # type: ignore[no-untyped-def]  # noqa: D102
        x, patterns, added, matrix = ctx.saved_tensors
        of_noise = of_matrix = None
        if of_rgb is not None:
            of_matrix = (of_rgb.mT @ pixels(x)).mT  # (N, C, 3), in the order that is faster
            grad = from_pixels(of_rgb @ matrix.mT if grad is None else torch.baddbmm(pixels(grad), of_rgb, matrix.mT))
        grad = torch.zeros_like(x) if grad is None else grad
        grad = torch.ops.aten.leaky_relu_backward(grad, x, 0.2, True)
        if ctx.needs_input_grad[1]:
            of_noise = (added[:, 1:] @ pixels(grad).mT).unflatten(2, x.shape[2:]).sum_to_size(ctx.noise_shape)
        return grad, of_noise, patterns @ pixels(grad), of_matrix


def pixels(x: Tensor) -> Tensor:
    """(N, C, R, R) → (N, R², C): the same memory, as long as the channels lie last in it."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def from_pixels(x: Tensor) -> Tensor:
    """(N, R², C) → (N, C, R, R), with the channels last in memory."""
    side = isqrt(x.shape[1])
    return x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
