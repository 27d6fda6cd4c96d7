"""Figures that move: in a live notebook, in Colab, and in the built page, where no kernel answers."""

from facesr_lib.widgets.before_after import BeforeAfter
from facesr_lib.widgets.latent_trajectory import LatentTrajectory, Run

__all__ = ["BeforeAfter", "LatentTrajectory", "Run"]
