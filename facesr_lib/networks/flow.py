"""Masked autoregressive flow: an invertible network that turns codes w into Gaussian vectors v, with their density."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.messages import check_tensors

Bounds = tuple[float, float]

_FIXED = re.compile(r"\.(mask|degrees)$")
_EARLIER = re.compile(r"^transform\._transforms\.(\d+)\.(autoregressive_net)?")  # names of flows without bounds


class Block(nn.Module):
    r"""One autoregression, :math:`v_i = e^{s_i(w_{<i})} w_i + m_i(w_{<i})`: one pass gives all of v, d passes all of w.

    With bounds (c, b) the way back cannot run away, whatever v: :math:`|s_i| < c`, as it is squashed, and m_i is
    bounded too, as the network sees :math:`b \tanh(w / b)` in w's place.
    """

    def __init__(self, d: int, hidden: int, bounds: Bounds | None):
        super().__init__()
        from nflows.transforms.made import MADE

        self.net, self.bounds = MADE(d, hidden, num_blocks=2, output_multiplier=2), bounds

    def scale_and_shift(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, d) → the scale, its logarithm s, and the shift m, (N, d) each."""
        if self.bounds is None:
            u, m = self.net(w).unflatten(-1, (-1, 2)).unbind(-1)
            scale = F.softplus(u) + 1e-3
            return scale, scale.log(), m
        c, b = self.bounds
        u, m = self.net(b * torch.tanh(w / b)).unflatten(-1, (-1, 2)).unbind(-1)
        s = c * torch.tanh(u / c)
        return s.exp(), s, m

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """W → v, (N, d) → (N, d), and log |∂v/∂w|, (N,)."""
        scale, s, m = self.scale_and_shift(w)
        return scale * w + m, s.sum(-1)

    def inverse(self, v: Tensor) -> Tensor:
        """V → w, (N, d) → (N, d): the k-th pass makes w_k final, and where nothing changes any more all are."""
        w = torch.zeros_like(v)
        for _ in range(v.shape[-1]):
            scale, _, m = self.scale_and_shift(w)
            before, w = w, (v - m) / scale
            if torch.equal(before, w):
                break
        return w


class Flow(nn.Module):
    r"""MAF of RLS (Gheisari and Genovesio 2023): a few autoregressive blocks, the order reversed between them.

    ``d`` is the dimension of w, ``hidden`` the width of each block's masked network; the paper has 5 ``blocks``.
    ``bounds`` are c and b, see `Block`: how large the logarithm of a block's scale can be, and up to how many standard
    deviations its network tells codes apart. ``None``: neither is bounded, as in flows of earlier versions, whose
    `inverse` is infinite or enormous for some draws.

    Source: Papamakarios et al. 2017, on nflows' masked network. Bounded log-scales are from Dinh et al. 2017, the
    bounded view of w is ours. ``mean`` and ``std`` standardise w first; set them with `standardise`.
    """

    blocks: Sequence[Block]
    mean: Tensor
    std: Tensor

    def __init__(self, d: int, hidden: int = 1024, blocks: int = 5, bounds: Bounds | None = (1.0, 4.0)):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d, hidden, bounds) for _ in range(blocks))  # type: ignore[assignment]
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))
        self.register_buffer("bounds", bounds and torch.tensor(bounds))  # tells the kinds apart in a file

    def standardise(self, w: Tensor) -> None:
        """Set the first, linear step from samples (M, d)."""
        self.mean.copy_(w.mean(0))
        self.std.copy_(w.std(0).clamp_min(1e-6))

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Codes w (..., d) → Gaussian vectors v (..., d) and the log density of w (...); differentiable."""
        check_tensors("codes", f"(..., {len(self.mean)})", w)
        v = ((w.to(self.mean.dtype) - self.mean) / self.std).reshape(-1, w.shape[-1])
        log_determinant = v.new_zeros(len(v))
        for block in self.blocks:
            v, more = block(v.flip(-1))
            log_determinant = log_determinant + more
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
        """Gaussian vectors v → codes w, (..., d) → (..., d); up to d passes through every block, slow for large d."""
        check_tensors("Gaussian vectors", f"(..., {len(self.mean)})", v)
        w = v.to(self.mean.dtype).reshape(-1, v.shape[-1])
        for block in reversed(self.blocks):
            w = block.inverse(w).flip(-1)
        return w.view_as(v) * self.std + self.mean

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
        """Build the flow that `weights` came from, in this or an earlier version; a ``ValueError`` if no flow's."""
        weights = {_EARLIER.sub(_present, name): value for name, value in weights.items()}
        layers = [value for name, value in weights.items() if name.endswith("initial_layer.weight")]
        if not layers:
            raise ValueError("these are not a flow's weights.")
        bounds = tuple(weights["bounds"].tolist()) if "bounds" in weights else None
        flow = cls(layers[0].shape[1], layers[0].shape[0], len(layers), bounds)
        missing, unexpected = flow.load_state_dict(weights, strict=False)
        if unexpected or not all(_FIXED.search(name) for name in missing):
            raise ValueError("these are not the weights of a flow of one piece.")
        return flow.eval()


def _present(earlier: re.Match[str]) -> str:
    """Name of a part today; reversals had numbers too."""
    return f"blocks.{int(earlier[1]) // 2}.net"
