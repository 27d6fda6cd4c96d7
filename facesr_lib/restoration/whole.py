"""Photographs in, photographs with restored faces out: what `facesr restore` does."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facesr_lib import files, images
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import detection
from facesr_lib.restoration.methods import check
from facesr_lib.restoration.outputs import Outcome, Outputs, paths, told
from facesr_lib.restoration.photo import UNCHOSEN, PhotoChoices, PhotoFace, RestoredPhoto, least, restore_photo

TILE = 160  # of the contact sheet


@dataclass
class PhotoOutcome(Outcome):
    """What became of one photograph; each face has its own ``residual``, the photograph none."""

    notes: list[str] = field(default_factory=list)  # what `images.read` warned of, such as what was transparent
    faces: list[PhotoFace] = field(default_factory=list)  # all that were found

    @property
    def message(self) -> str:
        """One line for a terminal, and one for each face of which something is to be said."""
        lines = [f"{self.photo}: {self.error}"]
        if self.output is not None:
            done = sum(face.restored for face in self.faces)
            lines = [f"{self.photo} → {self.output}  {done} of {len(self.faces)} faces restored", self.error]
        lines = [line for line in (*lines, *self.notes) if line]
        lines += [f"face {face.number}: {face.note}" for face in self.faces if face.note not in ("", UNCHOSEN)]
        return "\n    ".join(lines)


def restore_photos(
    photos: Iterable[str | Path],
    out: str | Path,
    *,
    method: str = "esrgan",
    prior: FacePrior | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Iterator[PhotoOutcome]:
    """Restore the faces of photographs, and write each photograph with two files beside it.

    ``<name>.png`` (or the photograph's own suffix, of those that can be written) is the photograph, with the EXIF data
    and the colour profile of the original; ``<name>-faces.png`` shows each face before and after, or says why it was
    left, numbered; ``<name>.json`` says what was asked for, found and done.

    Parameters
    ----------
    photos : iterable of paths
    out : path
        Folder of the results; made if it does not exist.
    overwrite : bool
        Whether a result takes the place of a file of its name; never that of one of the photographs.
    method, prior, progress, **options
        See `restore_photo`.

    Yields
    ------
    PhotoOutcome
        One per photograph, in order; one that cannot be restored does not stop the others.

    Raises
    ------
    ValueError
        If ``out`` is no folder, ``photos`` is no list of paths, or as `PhotoChoices` and `methods.check`.
    KeyboardInterrupt
        After Ctrl-C, when the photograph with the faces that were done is written and yielded.
    """
    outcomes = [PhotoOutcome(photo) for photo in paths(photos)]
    asked, options = PhotoChoices.among(options)
    how = check(method, options, prior)
    asked = replace(asked, smallest=least(how, asked, prior))
    setting = {name: getattr(asked, name) for name in ("scale", "strength", "background", "smallest", "seed", "grain")}
    setting = {"method": method, **setting, "options": how.options | options}
    setting["options"].pop("progress", None)
    outputs = Outputs(out, [outcome.photo for outcome in outcomes], overwrite)
    for outcome in outcomes:
        interrupted = False
        with told(outcome):
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", UserWarning)
                image = images.read(outcome.photo)
            outcome.notes = [str(each.message).removeprefix(f"{outcome.photo}: ") for each in warned]
            suffix = outcome.photo.suffix.lower()
            suffix = suffix if suffix in images.WRITABLE else ".png"
            names = outputs.named(outcome.photo.stem, f"{{}}{suffix}", "{}-faces.png", "{}.json")
            found = detection.find(image, detector=asked.detector, boxes=asked.boxes)
            if not found:
                raise ValueError(
                    "no face was found in it. Name the faces by --box LEFT,TOP,WIDTH,HEIGHT (in Python boxes=), or, if "
                    "the picture is a face that was cut out, say --aligned."
                )
            result = restore_photo(image, method, faces=found, prior=prior, progress=progress, **vars(asked), **options)
            interrupted, outcome.faces = result.interrupted, result.faces
            if not interrupted or any(face.restored for face in result.faces):
                with told(outcome, names[0]):
                    images.write(result.image, names[0], overwrite=overwrite, like=outcome.photo)
                    outcome.output = names[0]
                    about = {"photo": outcome.photo.name, "notes": outcome.notes}
                    _describe(result, names, overwrite, about | setting)
            else:
                outcome.error = "interrupted before a face was done; nothing was written."
        yield outcome
        if interrupted:
            raise KeyboardInterrupt


def _describe(result: RestoredPhoto, names: list[Path], overwrite: bool, setting: dict[str, Any]) -> None:
    images.write(contact_sheet(result.faces), names[1], overwrite=overwrite)
    told = {**setting, "interrupted": result.interrupted, "faces": []}
    head = json.dumps(told, default=lambda value: getattr(value, "__name__", str(value)))[:-2]
    lines = ",\n".join(json.dumps(described(face)) for face in result.faces)  # a face a line
    with files.replacing(names[2], overwrite=overwrite) as temporary:
        temporary.write_text(f"{head}\n{lines}\n]}}\n", encoding="utf-8")


def described(face: PhotoFace) -> dict[str, Any]:
    """What is known of a face, as JSON takes it."""
    found = face.found
    return {
        "number": face.number,
        "box": [round(n, 1) for n in found.box],
        "points": [[round(n, 1) for n in point] for point in found.points.tolist()],
        "size": round(face.size, 1),
        "score": round(found.score, 3),
        "detector": found.detector,
        "landmarks": found.landmarks,
        "restored": face.restored,
        "residual": round(face.residual, 2) if face.restored else None,
        "mask": face.mask,
        "note": face.note,
    }


def contact_sheet(faces: Iterable[PhotoFace]) -> Tensor:
    """Every face with its number, before and, beside it, after, or why it was left as it is: (3, H, W)."""
    pairs = []
    for face in faces:
        after = face.after if face.restored else torch.ones(3, 1, 1)
        both = torch.cat([images.resize(each[None], (TILE, TILE)) for each in (face.before, after)], 3)
        picture = Image.fromarray(images.to_uint8(both)[0])
        drawing = ImageDraw.Draw(picture)
        drawing.text((4, 2), str(face.number), "white", stroke_width=2, stroke_fill="black")
        if not face.restored:
            drawing.text((TILE + 8, 8), textwrap.fill(face.note or "interrupted before it was done", 24), "black")
        pairs.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)
    return images.grid(torch.stack(pairs), columns=min(4, len(pairs)), pad=6)
