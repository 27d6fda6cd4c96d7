"""Metrics: how good is a restored image, one number per image, (N,); and set metrics, one number per pair of sets.

Images are (N, 3, H, W) in [0, 1]; unless a docstring says otherwise they are compared unrounded.
Chapter 1 shows each metric's trap.
"""

from __future__ import annotations

from facesr_lib.metrics import naturalness, pretrained, recognition
from facesr_lib.metrics.naturalness import niqe
from facesr_lib.metrics.per_image import lpips, luma, ms_ssim, ms_ssim_scales, psnr, ssim
from facesr_lib.metrics.pretrained import MetricUnavailable
from facesr_lib.metrics.recognition import embed_faces, identity, identity_distance
from facesr_lib.metrics.sets import distances, embed, fid, kid, precision_recall, pseudo_values
from facesr_lib.networks import perceptual


def available() -> dict[str, str | None]:
    """Metric → ``None`` if it can run on this machine, else the reason why not.

    "id" stands for `identity` and `identity_distance`. Set metrics are listed with Inception's features under their own
    names, and with EfficientNet-Lite0's as ``fid-efficientnet-lite0`` and so on (see `embed`). "pi", the perceptual
    index (10 − NRQM + NIQE) / 2, is named only to say why it is not here.
    """
    of_sets = ("fid", "kid", "precision_recall")
    by_efficientnet = [f"{name}-efficientnet-lite0" for name in of_sets]
    return {
        **dict.fromkeys(("psnr", "ssim", "ms_ssim")),
        "lpips": pretrained.reason(lambda: perceptual.lpips_file("alex")),
        "id": pretrained.reason(recognition.model_files),
        "niqe": pretrained.reason(naturalness.pristine),
        "pi": "NRQM's regression forests, the half of PI that is not NIQE, are not to be had as a package.",
        **dict.fromkeys(of_sets, pretrained.reason(pretrained.inception_file)),
        **dict.fromkeys(by_efficientnet, pretrained.reason(pretrained.efficientnet_file)),
    }
