"""Losses: scalars per image, (N,)."""

from facesr_lib.losses.adversarial import relativistic_discriminator_loss, relativistic_generator_loss
from facesr_lib.losses.contextual import contextual_loss
from facesr_lib.losses.latent import geocross
from facesr_lib.losses.perceptual import feature_l1, imagenet_features, lpips_vgg, vgg_l1
from facesr_lib.losses.semantic import Entrance, SemanticLoss

__all__ = [
    "Entrance",
    "SemanticLoss",
    "contextual_loss",
    "feature_l1",
    "geocross",
    "imagenet_features",
    "lpips_vgg",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
    "vgg_l1",
]
