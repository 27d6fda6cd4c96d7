"""Figures that move: in a live notebook, in Colab, and in the built page, where no kernel answers."""

from facesr_lib.widgets.before_after import BeforeAfter
from facesr_lib.widgets.camera_stages import CameraStages
from facesr_lib.widgets.lambda_explorer import LambdaExplorer, Sweep
from facesr_lib.widgets.latent_trajectory import LatentTrajectory, Run
from facesr_lib.widgets.norm_histogram import NormHistogram
from facesr_lib.widgets.playground import Playground
