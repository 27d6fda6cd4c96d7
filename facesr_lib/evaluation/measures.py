"""What is measured of a row: the quality of its pictures, its time, how its answers differ, how Gaussian codes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import pstdev
from typing import Any

import torch
from torch import Tensor

from facesr_lib import assets, data, metrics
from facesr_lib.degrade import CameraPipeline, occlusion
from facesr_lib.evaluation import unaligned
from facesr_lib.evaluation.prior import gaussianisation
from facesr_lib.evaluation.records import OF_ALL_FACES
from facesr_lib.losses import normalise_heatmaps
from facesr_lib.metrics.parsing import confusion, iou
from facesr_lib.networks import landmarks, parsing
from facesr_lib.prior import FacePrior


@dataclass(frozen=True)
class Metric:
    """How a metric is read: is more better, its label, what its values are multiplied by under it, is it a count."""

    more_is_better: bool
    label: str
    unit: int = 1
    whole: bool = False


METRICS = {
    "psnr": Metric(True, "PSNR"),
    "ssim": Metric(True, "SSIM"),
    "ms_ssim": Metric(True, "MS-SSIM"),
    "lpips": Metric(False, "LPIPS"),
    "niqe": Metric(False, "NIQE"),
    "pi": Metric(False, "PI"),
    "psd": Metric(False, "standard deviation of PSNR"),
    "l1": Metric(False, "L1 of Y"),
    "fid": Metric(False, "FID"),
    "kid": Metric(False, "KID ×10³", 1000),
    "id": Metric(True, "ID"),
    "id_distance": Metric(False, "ID distance"),
    "residual": Metric(False, "residual, grey levels", 255),
    "diversity": Metric(True, "diversity, grey levels", 255),
    "seconds": Metric(False, "seconds per face"),
    "ks": Metric(False, "Kolmogorov–Smirnov distance"),
    "wasserstein": Metric(False, "Wasserstein distance"),
    "parameters": Metric(False, "parameters", whole=True),
    "nme_64": Metric(False, "NME at 64², %", 100),
    "nme_128": Metric(False, "NME at 128², %", 100),
    "sunglasses": Metric(True, "weight left, sunglasses, %", 100),
    "mask": Metric(True, "weight left, mask, %", 100),
    "hand": Metric(True, "weight left, hand, %", 100),
    "miou": Metric(True, "mean IoU"),
    "iou_eyes": Metric(True, "IoU of the eyes"),
    "iou_brows": Metric(True, "IoU of the brows"),
    "mos": Metric(True, "MOS"),
}
"""The papers' metrics, and what their words and figures are translated into."""

STAND_INS = {
    "fid": ("fid-efficientnet-lite0", "on features of efficientnet-lite0"),
    "kid": ("kid-efficientnet-lite0", "on features of efficientnet-lite0"),
    "niqe": ("niqe-256", "of faces enlarged to 256²"),
}
"""What is read where results hold no value under the metric's own name, and what is said of it."""


CROP = 4
"""Border pixels that the papers on natural pictures leave out at 4×."""

DRAWS = 10
"""Sets of codes, which stand in the place of faces."""

Values = Iterator[tuple[int, str, float]]
"""Face, metric, value."""
Restored = Callable[[int], Mapping[str, Tensor]]
"""Number of an attempt, from 0 on → a row's "image" (N, 3, R, R), "residual" and "seconds" (N,)."""
Measure = Callable[..., Values]
"""What a table measures: given ``restored``, ``truth``, ``prior``, the row's ``options``, ``seed`` and ``camera``."""


def _each(metric: str, column: Tensor) -> Values:
    """A value for each face."""
    yield from ((face, metric, value) for face, value in enumerate(column.tolist()))


def quality(restored: Restored, truth: Tensor, **_: Any) -> Values:
    """Every metric that can run here: face by face, and for the set as a whole with a pseudo-value for each face."""
    found, here = restored(0), metrics.available()
    image = found["image"]
    of_pairs = {"psnr": metrics.psnr, "ssim": metrics.ssim, "ms_ssim": metrics.ms_ssim, "lpips": metrics.lpips}
    columns = {name: function(image, truth) for name, function in of_pairs.items() if here[name] is None}
    if here["id"] is None:
        faces = metrics.embed_faces(image), metrics.embed_faces(truth)
        columns |= {"id": metrics.identity(*faces), "id_distance": metrics.identity_distance(*faces)}
    if here["niqe"] is None:
        small = image.shape[2] < 192  # fewer than four of its blocks: enlarged first, and named for it
        columns["niqe-256" if small else "niqe"] = metrics.niqe(image, resize_to=256 if small else None)
    for name, column in (columns | {"residual": found["residual"]}).items():
        yield from _each(name, column)
    for network, suffix in {"inception": "", "efficientnet-lite0": "-efficientnet-lite0"}.items():
        if here[f"fid{suffix}"] is None and len(image) > 2:  # leaving a face out leaves two, a set's least
            real, fake = (metrics.embed(x, network) for x in (truth, image))
            whole = {"fid": metrics.fid(real, fake), "kid": metrics.kid(real, fake)[0]}
            for name, column in metrics.pseudo_values(real, fake, network).items():
                yield OF_ALL_FACES, name + suffix, whole[name].item()
                yield from _each(name + suffix, column)


def of_pictures(restored: Restored, truth: Sequence[Tensor], **_: Any) -> Values:
    """Enlarged pictures, as files, against the originals (1, 3, H, W): luminance, 4 pixels cropped (Wang et al. 2018).

    "psd" is the standard deviation of PSNR over the set, with a pseudo-value for each picture; "l1-wrapped" the mean
    difference of two luminances whose bytes are subtracted as bytes, where 3 − 5 is 254.
    """
    of_each: list[float] = []
    naturalness = metrics.available()["niqe"] is None
    for picture, (image, original) in enumerate(zip(restored(0)["image"], truth, strict=True)):
        rounded = (image * 255).round() / 255
        alike = _alike(rounded, original)
        of_each.append(alike["psnr"])
        yield from ((picture, metric, value) for metric, value in alike.items())
        ours, theirs = ((metrics.luma(x) * 255).round()[..., CROP:-CROP, CROP:-CROP] for x in (rounded, original))
        yield picture, "l1", (ours - theirs).abs().mean().item() / 255
        yield picture, "l1-wrapped", (ours - theirs).remainder(256).mean().item() / 255
        if naturalness:
            yield picture, "niqe", metrics.niqe(rounded, crop=CROP).item()
    whole, n = pstdev(of_each), len(of_each)
    yield OF_ALL_FACES, "psd", whole
    for picture in range(n):
        yield picture, "psd", n * whole - (n - 1) * pstdev(of_each[:picture] + of_each[picture + 1 :])


def of_patches(restored: Restored, truth: Sequence[Tensor], **_: Any) -> Values:
    """PSNR and SSIM of patches, as in `of_pictures`; of the rest a patch is too small to tell."""
    for patch, (image, original) in enumerate(zip(restored(0)["image"], truth, strict=True)):
        alike = _alike((image * 255).round() / 255, original)
        yield from ((patch, metric, value) for metric, value in alike.items())


def _alike(image: Tensor, original: Tensor) -> dict[str, float]:
    both = {"psnr": metrics.psnr, "ssim": metrics.ssim}
    return {name: metric(image, original, y_channel=True, crop=CROP).item() for name, metric in both.items()}


def reported(restored: Restored, truth: Tensor, **_: Any) -> Values:
    """As `quality`, and the PSNR of each face's batch of 16, of its mean squared error, as in the progressive paper.

    That is never more than the mean of the faces' own.
    """
    yield from quality(restored, truth)
    errors = (restored(0)["image"] - truth).square().mean((1, 2, 3)).split(16)
    batches = torch.cat([(-10 * error.mean().log10()).expand(len(error)) for error in errors])
    yield from _each("psnr-of-batches", batches)


@torch.no_grad()
def attention(
    restored: Restored, truth: Tensor, options: Mapping[str, Any], setting: str = "", seed: int = 0, **_: Any
) -> Values:
    """As `reported`, and of the landmark network its parameters and its distance from labels, as a share of the side.

    ``options["network"]``: "landmarks", whose network sees faces of 128² as they are, as in the authors' release; or
    none, for FAN, of which nothing is known but its layers.
    """
    ours = options.get("network", "landmarks") == "landmarks"
    network = landmarks.load(assets.path("landmarks")) if ours else landmarks.FAN()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    yield from ((face, "parameters", parameters) for face in range(len(truth)))
    if not ours:
        return
    moved = setting == unaligned.NAME
    labels = unaligned.points(len(truth), seed) if moved else unaligned.aligned_points(len(truth))
    for side in (64, 128):
        small = torch.nn.functional.avg_pool2d(truth, truth.shape[2] // side).cpu()
        points = torch.cat([landmarks.peaks(network(part)) for part in small.split(10)])
        nme = ((points + 0.5) / side - labels).norm(dim=2).mean(1)
        yield from _each(f"nme_{side}", nme)
    yield from reported(restored, truth)


@torch.no_grad()
def hidden(truth: Tensor, options: Mapping[str, Any], **_: Any) -> Values:
    """How much weight, M* of eq. 1, is left at a face's landmarks when a thing is put in front of it.

    ``options["network"]`` is a registry entry; ``options["covered"]``: at the points that the thing covers, or at the
    others.
    """
    network, truth = landmarks.load(assets.path(options["network"])), truth.cpu()
    points = unaligned.aligned_points(len(truth))

    def at_points(maps: Tensor) -> Tensor:  # (N, S, S) → (N, 68)
        x, y = (points * maps.shape[2] - 0.5).round().long().clamp(0, maps.shape[2] - 1).unbind(2)
        return maps.flatten(1).gather(1, y * maps.shape[2] + x)

    def weights(faces: Tensor) -> Tensor:
        maps = torch.cat([network.heatmaps(part) for part in faces.split(10)])
        return at_points(normalise_heatmaps(maps).amax(1))

    before = weights(truth)
    for thing in occlusion.THINGS:
        faces, cover = occlusion.hide(truth, points * truth.shape[2] - 0.5, thing)
        chosen = (at_points(cover) > 0.5) == options["covered"]
        yield from _each(thing, (weights(faces) * chosen).sum(1) / (before * chosen).sum(1))


@torch.no_grad()
def parsed(truth: Tensor, options: Mapping[str, Any], seed: int, camera: CameraPipeline | None, **_: Any) -> Values:
    """How a network parses faces that ``camera`` made poor, and how near its pictures come to the target.

    ``options``: "network", a registry entry; without it the poor faces are the pictures. "pictures": False, if it
    learnt to draw none. "classes": whether each class's IoU is asked for besides those of eyes, brows and all. IoU is
    the set's, with a pseudo-value for each face; of eyes and brows it is the mean of left and right. What is not
    finite, such as the PSNR of faces that nothing befell, is left out.
    """
    poor, target = replace(camera, seed=seed)(truth.cpu()) if camera else (truth.cpu(), truth.cpu())
    n, image = len(truth), poor
    whole, columns = dict[str, Tensor](), dict[str, Tensor]()
    if name := options.get("network"):
        network = parsing.load(assets.path(name))
        logits, image = (torch.cat(parts) for parts in zip(*map(network, poor.split(10)), strict=True))
        counts = confusion(logits.argmax(1), torch.from_numpy(data.parsing("faces-test", truth.shape[2])[:n]))
        whole, without = _overlaps(counts.sum(0)), _overlaps(counts.sum(0) - counts)
        asked = whole if options.get("classes") else ("miou", "iou_eyes", "iou_brows")
        columns = {metric: n * whole[metric] - (n - 1) * without[metric] for metric in asked}
    if options.get("pictures", True):
        image = image.clamp(0, 1)
        columns |= {"psnr": metrics.psnr(image, target), "ssim": metrics.ssim(image, target)}
    for metric, column in columns.items():
        if column.isfinite().all():
            if metric in whole:
                yield OF_ALL_FACES, metric, whole[metric].item()
            yield from _each(metric, column)


def _overlaps(counts: Tensor) -> dict[str, Tensor]:
    """IoU of each class, of eyes and brows, and of all: (..., C, C) → (...) each."""
    each = dict(zip((f"iou_{name}" for name in parsing.CLASSES), iou(counts).double().unbind(-1), strict=True))
    pairs = {f"iou_{part}s": (each[f"iou_l_{part}"] + each[f"iou_r_{part}"]) / 2 for part in ("eye", "brow")}
    return {"miou": torch.stack([*each.values()]).nanmean(0)} | pairs | each


def seconds(restored: Restored, **_: Any) -> Values:
    """A face's share in its batch's wall-clock time."""
    yield from _each("seconds", restored(0)["seconds"])


def diversity(restored: Restored, answers: int = 4, **_: Any) -> Values:
    """Root mean squared difference between two of several answers to one picture, and what they leave unexplained."""
    found = [restored(1 + k) for k in range(answers)]
    image = torch.stack([one["image"] for one in found])  # (K, N, 3, R, R)
    yield from _each("diversity", (image.var(0).mean((1, 2, 3)) * 2).sqrt())  # two draws differ by twice the variance
    yield from _each("residual", torch.stack([one["residual"] for one in found]).mean(0))


def gaussianity(prior: FacePrior, options: Mapping[str, Any], seed: int, **_: Any) -> Values:
    """Distances of ‖v‖² from χ² in ``options["space"]``, for `DRAWS` draws of 10,000 codes in place of faces."""
    for k in range(DRAWS):
        drawn = {"samples": options.get("samples", 10_000), "seed": 1_000_000 + 10 * (seed * DRAWS + k)}
        for found in gaussianisation(prior, **drawn):
            if found.space == options["space"]:
                yield k, "ks", found.ks
                yield k, "wasserstein", found.wasserstein
