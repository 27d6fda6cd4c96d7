"""Metrics: how good is a restored image, one number per image, (N,); and set metrics, one number per pair of sets.

Images are (N, 3, H, W) in [0, 1]; unless a docstring says otherwise they are compared unrounded.
Chapter 1 shows each metric's trap.
"""

from __future__ import annotations

from facesr_lib.metrics import pretrained
from facesr_lib.metrics.niqe import niqe, pristine
from facesr_lib.metrics.per_image import MS_SSIM_WEIGHTS, lpips, luma, ms_ssim, ms_ssim_scales, psnr, ssim
from facesr_lib.metrics.pretrained import MetricUnavailable
from facesr_lib.metrics.sets import distances, embed, fid, kid, precision_recall

__all__ = [
    "MS_SSIM_WEIGHTS",
    "MetricUnavailable",
    "available",
    "distances",
    "embed",
    "fid",
    "kid",
    "lpips",
    "luma",
    "ms_ssim",
    "ms_ssim_scales",
    "niqe",
    "precision_recall",
    "pristine",
    "psnr",
    "ssim",
]


def available() -> dict[str, str | None]:
    """Metric → ``None`` if it can run on this machine, else the reason why not.

    Set metrics are listed with Inception's features under their own names, and with EfficientNet-Lite0's as
    ``fid-efficientnet-lite0`` and so on (see `embed`).
    """
    of_sets = ("fid", "kid", "precision_recall")
    efficientnet = pretrained.reason(pretrained.efficientnet_file)
    return (
        dict.fromkeys(("psnr", "ssim", "ms_ssim"))
        | {
            "lpips": pretrained.reason(pretrained.alexnet_file),
            "niqe": pretrained.reason(pristine),
        }
        | dict.fromkeys(of_sets, pretrained.reason(pretrained.inception_file))
        | {f"{name}-efficientnet-lite0": efficientnet for name in of_sets}
    )
