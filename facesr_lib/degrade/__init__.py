"""Forward operators, HR → LR, and the corruptions that test how robust a method is."""

from facesr_lib.degrade.camera import CameraPipeline
from facesr_lib.degrade.corruptions import GaussianBlur, GaussianNoise, MotionBlur, SaltAndPepper
from facesr_lib.degrade.downsample import (
    KERNELS,
    Chain,
    Downsample,
    check_gradient,
    check_lowres,
    check_pixels,
    halved,
    halvings,
)
