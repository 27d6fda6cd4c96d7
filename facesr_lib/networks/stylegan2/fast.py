"""What a synthesis layer does to its map: as one would write it, and in the fewest passes over memory."""

from __future__ import annotations

from math import isqrt, sqrt

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from facesr_lib.networks.stylegan2.layers import blur


def modulated(
    x: Tensor,
    scale: Tensor,
    style: Tensor,
    offset: Tensor,
    noise: Tensor,
    weight: Tensor,
    energy: Tensor,
    up: bool,
    matrix: Tensor | None = None,
    shared: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Modulated convolution, noise, bias, leaky ReLU (equations 1 and 3 of the StyleGAN2 paper), and the map's colours.

    Modulation scales the *activations* before the convolution, demodulation after it: the same result as per-image
    weights, without making them. Demodulation is positive, so it commutes with the leaky ReLU; together with that one's
    gain, √2, it is handed on for whoever reads the map to multiply with.

    Parameters
    ----------
    x, scale : (N, C_in, R, R), (N, C_in)
        The map is x times scale.
    style : (N, C_in)
    offset : (2, C_out)
        Bias, and strength of the noise.
    noise : (1 or N, 1, R_out, R_out)
    weight, energy : (C_out, C_in, 3, 3), (C_out, C_in)
        The kernels, and the sum of each one's squares.
    up : bool
        Whether the side is doubled.
    matrix : (N, C_out, 3), optional
        What makes colours of the new map's channels.
    shared : (C_in, R²·C_out), optional
        `by_channel` of x, if x is the same for all images: only their factors remain to be multiplied with.

    Returns
    -------
    x, scale : (N, C_out, R_out, R_out), (N, C_out)
    rgb : (N, R_out², 3), or None without a matrix
    """
    norm = _norm(style, energy)
    x = _convolve(x, style * scale, weight.to(x.dtype), up, shared)
    bias, strength = _per_channel(offset[:, None] * norm, x)
    x = F.leaky_relu_(torch.addcmul(x.add_(bias), noise, strength), 0.2)
    scale = sqrt(2) / norm
    rgb = None if matrix is None else torch.bmm(pixels(x), (matrix * scale[:, :, None]).to(x.dtype))
    return x, scale, rgb


class InPlace(torch.autograd.Function):
    """`modulated` for weights that nobody learns, with a gradient by hand.

    Beside its convolutions a search waits for memory. Here bias and noise are one matrix product, and so are the sums
    over the pixels, where autograd's own rules would first write a map of products; the colours' gradient becomes the
    map's, and the style scales the gradient where it lies.
    """

    @staticmethod
    def forward(ctx, x, scale, style, offset, noise, weight, energy, up, matrix=None, shared=None):  # type: ignore[no-untyped-def]  # noqa: D102
        norm, factor, weight = _norm(style, energy), style * scale, weight.to(x.dtype)
        out = _convolve(x, factor, weight, up, shared)
        patterns = torch.cat([torch.ones_like(noise), noise], 1).flatten(2)  # (N, 2, R²): of the bias, of the strength
        added = (offset * norm[:, None]).to(x.dtype)  # (N, 2, C_out)
        flat = F.leaky_relu_(pixels(out).baddbmm_(patterns.mT.expand(len(x), -1, -1), added), 0.2)
        out, new_scale = from_pixels(flat), sqrt(2) / norm
        rgb = None if matrix is None else torch.bmm(flat, (matrix * new_scale[:, :, None]).to(x.dtype))
        ctx.set_materialize_grads(False)
        ctx.up, ctx.noise_shape = up, noise.shape
        ctx.save_for_backward(
            x, scale, style, factor, offset, patterns, weight, energy, matrix, shared, norm, out, new_scale
        )
        return out, new_scale, rgb

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, of_new_scale, of_rgb):  # type: ignore[no-untyped-def]  # noqa: D102
        x, scale, style, factor, offset, patterns, weight, energy, matrix, shared, norm, out, new_scale = (
            ctx.saved_tensors
        )
        of_new_scale = torch.zeros_like(new_scale) if of_new_scale is None else of_new_scale
        of_matrix = None
        if of_rgb is None:
            grad = torch.zeros_like(out) if grad is None else grad
            grad = torch.ops.aten.leaky_relu_backward(grad, out, 0.2, True)
        else:
            of_product = (of_rgb.mT @ pixels(out)).mT.to(style.dtype)  # (N, C_out, 3), in the order that is faster
            of_matrix = of_product * new_scale[:, :, None]
            of_new_scale = of_new_scale + (of_product * matrix).sum(2)
            back = (matrix * new_scale[:, :, None]).to(x.dtype).mT
            whole = from_pixels(of_rgb @ back if grad is None else torch.baddbmm(pixels(grad), of_rgb, back))
            grad = torch.ops.aten.leaky_relu_backward.grad_input(whole, out, 0.2, True, grad_input=whole)
        # norm multiplies bias and strength, and divides the new scale
        per_offset = patterns @ pixels(grad)  # (N, 2, C_out)
        of_norm = (per_offset * offset).sum(1) - of_new_scale * new_scale / norm
        of_noise = None
        if ctx.needs_input_grad[4]:
            per_pixel = (offset[1] * norm).to(x.dtype)[:, None] @ pixels(grad).mT  # (N, 1, R²)
            of_noise = per_pixel.unflatten(2, out.shape[2:]).sum_to_size(ctx.noise_shape)
        if shared is None:
            grad = _convolve_backward(grad, x, weight, ctx.up)
            of_factor = (grad * x).sum((2, 3), dtype=style.dtype)
            of_x = grad.mul_(_per_channel(factor, x))
        else:
            of_factor, of_x = pixels(grad).flatten(1).to(style.dtype) @ shared.t(), None
        of_style = of_factor * scale + style * ((of_norm / norm) @ energy)  # norm² = style² · energy
        return of_x, of_factor * style, of_style, None, of_noise, None, None, None, of_matrix, None


def pixels(x: Tensor) -> Tensor:
    """(N, C, R, R) → (N, R², C): the same memory, as long as the channels lie last in it."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def from_pixels(x: Tensor) -> Tensor:
    """(N, R², C) → (N, C, R, R), with the channels last in memory."""
    side = isqrt(x.shape[1])
    return x.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def _norm(style: Tensor, energy: Tensor) -> Tensor:
    """(N, C_in), (C_out, C_in) → (N, C_out), each output channel's standard deviation: demodulation divides by it."""
    return (style.square() @ energy.t() + 1e-8).sqrt()


def _per_channel(factor: Tensor, x: Tensor) -> Tensor:
    """(..., C) → (..., C, 1, 1), of x's precision."""
    return factor[..., None, None].to(x.dtype)


def kernel_energy(weight: Tensor) -> Tensor:
    """Sum of each kernel's squares, (C_out, C_in, 3, 3) → (C_out, C_in)."""
    return weight.square().sum((2, 3))


def by_channel(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve each channel of one map by itself: (C_in, R, R) with (C_out, C_in, 3, 3) → (C_in, R²·C_out).

    A row (C_in) times this matrix is the convolution of the map with its channels scaled by that row.
    """
    windows = F.unfold(x[:, None], 3, padding=1)  # (C_in, 9, R²)
    return (windows.mT @ weight.permute(1, 2, 3, 0).flatten(1, 2)).flatten(1)


def _convolve(x: Tensor, factor: Tensor, weight: Tensor, up: bool, shared: Tensor | None) -> Tensor:
    if shared is not None:
        return from_pixels((factor @ shared).to(x.dtype).unflatten(1, (-1, len(weight))))
    x = x * _per_channel(factor, x)
    if not up:
        return F.conv2d(x, weight, padding=1)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, C_out, 2R + 1, 2R + 1)
    return blur(x, padding=1, gain=4.0)


def _convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, up: bool) -> Tensor:
    """Return the gradient of the map that is convolved, which is of x's shape."""
    if up:
        grad = blur(grad, padding=2, gain=4.0)  # a symmetric filter, backwards: itself, padded to the other size
        weight, stride, padding = weight.transpose(0, 1), [2, 2], [0, 0]
    else:
        stride, padding = [1, 1], [1, 1]
    grad, _, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], up, [0, 0], 1, [True, False, False]
    )
    return grad
