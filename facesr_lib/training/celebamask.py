"""CelebAMask-HQ (Lee et al. 2020) as it is released: faces, one mask for each part of each, and the official split."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from facesr_lib import data, devices, files
from facesr_lib.messages import choose
from facesr_lib.networks.parsing import CLASSES

FACES, MASKS, LIST = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
SPLITS = {"train": range(162_771), "val": range(162_771, 182_638), "test": range(182_638, 202_600)}
"""Each split by its faces' numbers in CelebA, the list's second column: 24,183, 2,993 and 2,824 faces."""

_CALLED = {"eyeglass": "eye_g", "earring": "ear_r", "necklace": "neck_l"}
PARTS = {_CALLED.get(name, name): label for label, name in enumerate(CLASSES) if label}
"""What masks are called, and which class they are of; all else is background."""


def read(folder: str | Path, size: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Read a split's faces and label maps.

    Parameters
    ----------
    folder : str or Path
        Holds the release's ``CelebA-HQ-img``, ``CelebAMask-HQ-mask-anno`` and ``CelebA-HQ-to-CelebA-mapping.txt``.
    size : int
        A divisor of the masks' side, 512.
    split : {"train", "val", "test"}

    Returns
    -------
    pixels, masks : (M, size, size, 3), (M, size, size)
        uint8, in the order of the faces' numbers; shrunk by means, and to the nearest pixel. Errors name what is not
        there: a part of the release, a face, all of its masks, a split; and a list or a mask that is none.
    """
    folder, numbers = files.expanded(folder), SPLITS[choose(split, SPLITS, "split")]
    if missing := [name for name in (FACES, MASKS, LIST) if not (folder / name).exists()]:
        raise FileNotFoundError(
            f"{folder} holds no {', '.join(missing)}: give the folder that came of unpacking CelebAMask-HQ."
        )
    try:
        lines = [line.split() for line in (folder / LIST).read_text().splitlines()[1:] if line.strip()]
        wanted = [int(number) for number, original, *_ in lines if int(original) in numbers]
    except ValueError as error:
        raise ValueError(f"{folder / LIST} is no list of faces ({error}): copy it from the release anew.") from error
    place = {path.stem: i for i, path in enumerate(data.pictures(folder / FACES))}
    if lacking := [str(number) for number in wanted if str(number) not in place]:
        raise FileNotFoundError(
            f"{len(lacking)} of the {len(wanted)} faces of {split!r} are not in {folder / FACES}, such as "
            f"{lacking[0]}.jpg: unpack them, or take them off the list."
        )
    with ThreadPoolExecutor(devices.cores()) as pool:
        masks = [*pool.map(partial(label_map, folder / MASKS, size=size), wanted)]
    whole = data.prepared(folder / FACES, size, skip_damaged=False)
    return whole[[place[str(number)] for number in wanted]], np.array(masks, np.uint8).reshape(-1, size, size)


def label_map(folder: Path, number: int, size: int) -> np.ndarray:
    """Paint a face's masks over each other in the order of the classes: (size, size), uint8; errors as `read`'s."""
    painted, found = np.zeros((size, size), np.uint8), 0
    for part, label in PARTS.items():
        path = folder / str(number // 2000) / f"{number:05d}_{part}.png"
        if path.is_file():
            painted[_inside(path, size)] = label
            found += 1
    if not found:
        raise FileNotFoundError(f"face {number} has no mask in {folder / str(number // 2000)}: unpack them all.")
    return painted


def _inside(path: Path, size: int) -> np.ndarray:
    """What a mask covers, (size, size)."""
    try:
        mask = np.asarray(Image.open(path).convert("L"))
    except Exception as error:  # a decoder raises nearly anything on foreign bytes
        raise ValueError(f"{path} is no mask that can be read ({error}): unpack it anew.") from error
    if mask.shape[0] != mask.shape[1] or mask.shape[0] % size:
        raise ValueError(f"{path} is {mask.shape[1]}×{mask.shape[0]}: masks are squares, of a multiple of {size}.")
    if np.count_nonzero(np.bincount(mask.ravel())[1:]) > 1:
        raise ValueError(
            f"{path} is grey in places, and a mask is black and one other: it was resized by means. Take the release's "
            "own, 512×512, or make masks small by the nearest pixel."
        )
    step = mask.shape[0] // size
    return mask[step // 2 :: step, step // 2 :: step] > 0
