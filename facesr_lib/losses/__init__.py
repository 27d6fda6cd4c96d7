"""Losses: scalars per image, (N,)."""

from facesr_lib.losses.adversarial import (
    gradient_penalty,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    wasserstein_critic_loss,
)
from facesr_lib.losses.contextual import contextual_loss
from facesr_lib.losses.features import block_features, feature_l1, feature_loss, imagenet_features
from facesr_lib.losses.landmarks import attention_loss, heatmap_loss, normalise_heatmaps
from facesr_lib.losses.latent import geocross
from facesr_lib.losses.perceptual import lpips_vgg, vgg_l1
from facesr_lib.losses.semantic import Entrance, SemanticLoss
