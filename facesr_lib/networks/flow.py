"""Masked autoregressive flow: an invertible network that turns codes w into Gaussian vectors v, with their density."""

from __future__ import annotations

import re
from functools import partial
from math import log, pi

import torch
from torch import Tensor, nn

_FIXED = re.compile(r"\.(mask|degrees|_permutation)$")


class Flow(nn.Module):
    r"""MAF of RLS (Gheisari and Genovesio 2023): a few autoregressive blocks, the order reversed between them.

    Each block computes :math:`v_i = (w_i - \mu_i(w_{<i})) / \sigma_i(w_{<i})` for all i at once. One pass gives v and
    the density; the way back takes d passes.

    Parameters
    ----------
    d, hidden, blocks : int
        Dimensions of w; width of each block's masked network; autoregressive blocks, of which the paper has 5.

    Notes
    -----
    Source: Papamakarios et al. 2017, on nflows. ``mean`` and ``std`` standardise w first; set them with `standardise`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, d: int, hidden: int = 1024, blocks: int = 5):
        super().__init__()
        from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

        parts: list[nn.Module] = []
        for _ in range(blocks):
            parts += [ReversePermutation(d), MaskedAffineAutoregressiveTransform(d, hidden, num_blocks=2)]
        self.transform = CompositeTransform(parts)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))

    def standardise(self, w: Tensor) -> None:
        """Set the first, linear step from samples (M, d)."""
        self.mean.copy_(w.mean(0))
        self.std.copy_(w.std(0).clamp_min(1e-6))

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Codes w (..., d) → Gaussian vectors v (..., d) and the log density of w (...); differentiable."""
        v, log_determinant = self.transform(((w - self.mean) / self.std).reshape(-1, w.shape[-1]))
        v, log_determinant = v.view_as(w), log_determinant.view(w.shape[:-1]) - self.std.log().sum()
        # log p(w) = log |∂v/∂w| + log N(v; 0, 1)
        return v, log_determinant - 0.5 * (v.square() + log(2 * pi)).sum(-1)

    def gaussianise(self, w: Tensor) -> Tensor:
        """Codes w → Gaussian vectors v, (..., d) → (..., d)."""
        return self(w)[0]

    def log_prob(self, w: Tensor) -> Tensor:
        """Log density of w, (..., d) → (...)."""
        return self(w)[1]

    def inverse(self, v: Tensor) -> Tensor:
        """Gaussian vectors v → codes w, (..., d) → (..., d); d passes through every block, slow for large d."""
        flat, _ = self.transform.inverse(v.reshape(-1, v.shape[-1]))
        return flat.view_as(v) * self.std + self.mean

    def freeze(self) -> Flow:
        """Stop learning; the masks are multiplied into the weights once, no longer at every call."""
        from nflows.transforms.made import MaskedLinear

        for layer in self.modules():
            if isinstance(layer, MaskedLinear):
                layer.weight.data.mul_(layer.mask)
                layer.forward = partial(nn.Linear.forward, layer)
        return self.eval().requires_grad_(False)

    def weights(self) -> dict[str, Tensor]:
        """What was learnt: the state dict without masks and orders, which follow from the sizes."""
        return {name: value for name, value in self.state_dict().items() if not _FIXED.search(name)}

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor]) -> Flow:
        """Build the flow that `weights` came from; a ``ValueError`` if they are no flow's."""
        layers = [value for name, value in weights.items() if name.endswith("initial_layer.weight")]
        if not layers:
            raise ValueError("these are not a flow's weights.")
        flow = cls(layers[0].shape[1], layers[0].shape[0], len(layers))
        missing, unexpected = flow.load_state_dict(weights, strict=False)
        if unexpected or not all(_FIXED.search(name) for name in missing):
            raise ValueError("these are not the weights of a flow of one piece.")
        return flow.eval()
