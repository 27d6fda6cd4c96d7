"""Losses: scalars per image, (N,)."""

from facesr_lib.losses.latent import geocross

__all__ = ["geocross"]
