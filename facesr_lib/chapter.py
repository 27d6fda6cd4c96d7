"""What every chapter opens with: a prior and faces, as good as this machine has them."""

from __future__ import annotations

from contextlib import suppress

from torch import Tensor

from facesr_lib import assets, data, messages
from facesr_lib.prior import FacePrior

PROFILES = ("smoke", "read", "paper")


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
    return prior.sample(count, seed=1_000)[0], "samples of the prior"
