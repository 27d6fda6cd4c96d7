"""What every chapter opens with: a prior and faces, as good as this machine has them, and findings that hold there."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from facesr_lib import assets, data, devices, messages
from facesr_lib.prior import FacePrior

if TYPE_CHECKING:
    from IPython.display import Markdown

PROFILES = ("smoke", "read", "paper")
LEFT_OUT = "FACESR_LEFT_OUT"
"""The variable that names a file for the findings that a chapter does not show; `facesr book` reads it."""
HELD_OUT, SAMPLES = "held-out faces", "samples of the prior"


@dataclass(frozen=True)
class Chapter:
    """What a chapter works with; `open` makes it."""

    profile: str  # in `PROFILES`
    seed: int
    prior: FacePrior
    truth: Tensor  # faces (N, 3, R, R) in [0, 1]
    origin: str  # where they come from, as labels should say: `HELD_OUT`, or `SAMPLES` where those are not here

    def finding(self, text: str, *conditions: object, always: bool = False, **numbers: object) -> Markdown | None:
        """Show a sentence, Markdown with ``{name}`` and ``{name:.1f}`` for the numbers, if its conditions are true.

        Where one fails nothing is shown, unless the sentence must hold: an ``AssertionError`` quotes it then. With
        ``always`` it must on every machine; by default only in the profile "read" with seed 0 on held-out faces, for
        which it was written.
        """
        from IPython.display import Markdown

        said = text.format(**numbers)
        if all(bool(condition) for condition in conditions):
            return Markdown(said)
        if always or (self.profile == "read" and self.seed == 0 and self.origin == HELD_OUT):
            raise AssertionError(f"no longer true: {said}")
        if file := os.environ.get(LEFT_OUT):
            with Path(file).open("a", encoding="utf-8") as left_out:
                print(said, file=left_out)
        return None


def open(profile: str, device: str = "auto", seed: int = 0, *, count: int = 16, with_flow: bool = False) -> Chapter:
    """Open a chapter: load the prior and ``count`` faces, say what they are, and warn where they are not held-out ones.

    Other parameters as in `prior`.
    """
    from IPython.display import HTML, display

    devices.keep_freed_memory()
    found = prior(profile, device, with_flow=with_flow)
    truth, origin = faces(found, count)
    print(f"{count} {origin}; the prior draws {found.resolution}×{found.resolution} pixels; profile {profile}")
    if origin == SAMPLES:
        display(HTML(BANNER))
    return Chapter(profile, seed, found, truth, origin)


BANNER = """\
<div class="admonition warning"><p class="admonition-title">Not the faces of the book</p>
<p>The held-out faces are not on this machine (<code>facesr assets fetch faces-test</code> brings them). The faces below
were drawn by the prior itself, which is easier for every method that searches in it; findings that do not hold for them
are left out.</p></div>
"""


def prior(profile: str, device: str = "auto", *, with_flow: bool = False) -> FacePrior:
    """Load the prior that a chapter uses: the shipped one, or in the profile "paper" the official FFHQ weights.

    Where those, or the flow that the chapter needs, are not on this machine, the profile "paper" runs on the shipped
    prior and says so.
    """
    official = "stylegan2-ffhq-1024"
    if messages.choose(profile, PROFILES, "profile") == "paper":
        try:
            found = FacePrior.load(official, device)
            if found.flow is not None or not with_flow:
                return found
            place = assets.path(official).with_suffix(".safetensors")
            missing = f"{official} has no flow; train one (`facesr train flow --prior {official}`), put it at {place}."
        except assets.AssetMissing as error:
            missing = str(error)
        print(f"Running on the shipped prior instead: {missing}")
    return FacePrior.load("faces-64", device)


def faces(prior: FacePrior, count: int) -> tuple[Tensor, str]:
    """Faces that the prior was not trained on, (count, 3, R, R), and where they come from.

    The origin is `data.held_out`'s, or "samples of the prior" where those faces are not on this machine or, up to 256²,
    are fewer.
    """
    with suppress(assets.AssetMissing):
        if prior.resolution > data.FACE_SIDE or count <= data.TEST_FACES:
            found, origin = data.held_out(prior.resolution, count)
            return found.to(prior.device), origin
    return prior.sample(count, seed=1_000)[0], SAMPLES
