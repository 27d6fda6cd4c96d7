"""Losses: scalars per image, (N,)."""

from facesr_lib.losses.latent import geocross
from facesr_lib.losses.perceptual import lpips_vgg, vgg_l1
from facesr_lib.losses.semantic import Entrance, SemanticLoss

__all__ = ["Entrance", "SemanticLoss", "geocross", "lpips_vgg", "vgg_l1"]
