"""How good a parsing is: intersection over union, class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from facesr_lib.messages import check
from facesr_lib.networks.parsing import CLASSES, UNDECIDED


def confusion(predicted: Tensor, labels: Tensor, classes: int = len(CLASSES)) -> Tensor:
    """Count pixels by what they are and what they were taken for; undecided ones (255) count nowhere.

    Whole numbers (N, H, W) twice → (N, classes, classes); row: the label, column: the prediction. Sums over images are
    the confusion of a set. A ``ValueError`` says that the two have different shapes, or that there are other classes.
    """
    for x in (predicted, labels):
        if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
            came = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ValueError(f"predictions and labels are classes, tensors of whole numbers (N, H, W); got {came}.")
    if predicted.shape != labels.shape or labels.ndim != 3:
        raise ValueError(f"both are (N, H, W); got {tuple(predicted.shape)} and {tuple(labels.shape)}.")
    check("classes", classes, int, at_least=1)
    predicted, labels = predicted.long(), labels.long()
    decided = labels != UNDECIDED
    if ((predicted < 0) | (predicted >= classes) | (decided & ((labels < 0) | (labels >= classes)))).any():
        raise ValueError(f"classes are 0 to {classes - 1}, and {UNDECIDED} is undecided; there are other numbers.")
    image = torch.arange(len(labels), device=labels.device)[:, None, None]
    cell = (image * classes + labels) * classes + predicted
    return torch.bincount(cell[decided], minlength=len(labels) * classes**2).view(len(labels), classes, classes)


def iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class, from `confusion`: (..., C, C) → (..., C); NaN where no label has it."""
    if not isinstance(counts, Tensor) or counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError("an intersection over union is of counts (..., C, C): `confusion` gives them.")
    hit, labelled, predicted = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)
    # |A ∩ B| / |A ∪ B|
    ratio = hit / (labelled + predicted - hit)
    return torch.where(labelled > 0, ratio, torch.nan)
