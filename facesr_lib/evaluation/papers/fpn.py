"""The parsing network of PSFR-GAN (Chen et al. 2021, appendix): what its figures show, measured on labelled faces."""

from functools import partial

from facesr_lib.degrade import CameraPipeline
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import SEED
from facesr_lib.evaluation.tables import PaperTable, Row

ARMS = {"multi-task": "parsing-64", "parsing alone": "parsing-64-alone"}
TRAININGS = {
    label + (f"{SEED}{seed}" if seed else ""): f"{name}-{seed}" for label, name in ARMS.items() for seed in range(3)
}
"""Row → registry entry: each arm was trained three times, and arms of one seed began alike."""

_alone = partial(CameraPipeline, side=(512, 513), grey_p=0, blur_p=0, noise_p=0, jpeg_p=0)  # nothing befalls the faces
STAGES = {
    "clean": None,
    "grey": _alone(grey_p=1),
    "blur": _alone(blur_p=1),
    "small": _alone(side=CameraPipeline.side),
    "noise": _alone(noise_p=1),
    "JPEG": _alone(jpeg_p=1),
    "program": CameraPipeline(),
    "equation 12": CameraPipeline(side=(32, 257), grey_p=0, blur_p=1, noise_p=1, jpeg_p=1),
}
"""Each stage alone, on every face; then all of them, as the official program draws them, and as they are written."""

TABLES = {
    "fpn-fig10": PaperTable(
        "parsing beside restoring against parsing alone",
        {1: 1},
        tuple(
            Row(label, options={"network": name, "classes": True, "pictures": "alone" not in name})
            for label, name in TRAININGS.items()
        ),
        measures.parsed,
        resolution=64,
        cameras={"clean": None, "poor": CameraPipeline()},
    ),
    "fpn-degradation": PaperTable(
        "what each stage of the degradation takes away",
        {1: 1},
        (
            Row("poor face"),
            Row("multi-task", options={"network": "parsing-128"}),
            Row("parsing alone", options={"network": "parsing-128-alone", "pictures": False}),
        ),
        measures.parsed,
        resolution=128,
        cameras=STAGES,
    ),
}
