"""Train the flow that Gaussianises a prior's codes (Gheisari and Genovesio 2023, sections 2.2 and 4).

The codes are drawn afresh from the mapping network, so there is no training set to exhaust; a fixed set of held-out
codes says when to stop.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from facesr_lib.networks.flow import Flow
from facesr_lib.prior import FacePrior
from facesr_lib.training.base import Training
from facesr_lib.training.config import Checked, within

PRIOR = "prior.safetensors"


@dataclass(frozen=True)
class Config(Checked):
    """Every choice of a training. The paper gives blocks and hidden width (5 and 1024, for d = 512) and no more."""

    hidden: int = within(256, at_least=1)
    blocks: int = within(5, at_least=1)
    """The flow's size."""
    batch: int = within(512, at_least=1)
    """Codes per step."""
    lr: float = within(1e-3, at_least=0)
    decay: float = within(0.3, above=0, at_most=1)
    """Adam's learning rate at first, and what it is multiplied by at every plateau."""
    validate_every: int = within(100, at_least=1)
    held_out: int = within(10_000, at_least=2)
    patience: int = within(8, at_least=0)
    """Steps between two validations, codes held out for them, and validations without a gain before a plateau is
    declared; the third plateau ends the training."""


class FlowTraining(Training[Config]):
    """A flow in training on the codes of a prior, which gets the ``best`` so far, by validation, at each checkpoint."""

    def __init__(self, prior: FacePrior, config: Config):
        self._prior, self._mapping = prior, prior.generator.mapping
        with config.seeded():
            self.flow = Flow(prior.w_dim, config.hidden, config.blocks)
        inputs: dict[str, Any] = {"prior": self._mapping, "bounds": self.flow.weights()["bounds"]}
        super().__init__(config, str(prior.device), seed=config.seed + 1, **inputs)
        self.enlist(partial(Adam, lr=config.lr, fused=True), "optimizer", flow=self.flow)
        self.best = self.parts["best"] = deepcopy(self.flow)
        self._held_out = self._codes(config.held_out)
        self.flow.standardise(self._held_out)
        self.best.load_state_dict(self.flow.state_dict())
        self._waited = self._plateaus = 0
        self._validation = torch.tensor(torch.inf)

    @property
    def finished(self) -> bool:
        """Whether the third plateau was reached."""
        return self._plateaus >= 3

    def step(self) -> dict[str, Tensor]:
        """One step on fresh codes; now and then a validation."""
        with self.turn(self.optimizers["flow"]):
            loss = -self.flow.log_prob(self._codes(self._c.batch)).mean()
            loss.backward()
            clip_grad_norm_(self.flow.parameters(), 5.0)
        self.images_seen += self.batch
        if self.images_seen == self.batch or self.images_seen % (self.batch * self._c.validate_every) == 0:
            self._validate()
        return {"nats": loss.detach(), "validation": self._validation}

    @torch.no_grad()
    def _validate(self) -> None:
        value = -torch.cat([self.flow.log_prob(part) for part in self._held_out.split(1000)]).mean().cpu()
        if value < self._validation:
            self._validation, self._waited = value, 0
            self.best.load_state_dict(self.flow.state_dict())
            return
        self._waited += 1
        if self._waited > self._c.patience:
            self._waited, self._plateaus = 0, self._plateaus + 1
            self.flow.load_state_dict(self.best.state_dict())
            for group in self.optimizers["flow"].param_groups:
                group["lr"] *= self._c.decay

    @torch.no_grad()
    def _codes(self, n: int) -> Tensor:
        return self._mapping(self.normal(n, self._mapping.z_dim))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return super().state_dict() | {"counts": [self._waited, self._plateaus], "validation": self._validation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""
        super().load_state_dict(state)
        (self._waited, self._plateaus), self._validation = state["counts"], state["validation"]

    def snapshot(self, folder: Path) -> None:
        """Give the best flow to the prior, and write that: ``prior.safetensors``, for `FacePrior.load`."""
        self._prior.flow = deepcopy(self.best).freeze()
        self._prior.save(folder / PRIOR)
