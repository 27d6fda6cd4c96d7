"""Losses: scalars per image, (N,)."""

from facesr_lib.losses.adversarial import gradient_penalty, wasserstein_critic_loss
from facesr_lib.losses.landmarks import attention_loss, heatmap_loss, normalise_heatmaps
from facesr_lib.losses.latent import geocross
from facesr_lib.losses.perceptual import block_features, feature_loss, lpips_vgg, vgg_l1
from facesr_lib.losses.semantic import Entrance, SemanticLoss

__all__ = [
    "Entrance",
    "SemanticLoss",
    "attention_loss",
    "block_features",
    "feature_loss",
    "geocross",
    "gradient_penalty",
    "heatmap_loss",
    "lpips_vgg",
    "normalise_heatmaps",
    "vgg_l1",
    "wasserstein_critic_loss",
]
