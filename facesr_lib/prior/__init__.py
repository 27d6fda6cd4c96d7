"""The face prior: what latent searches search in."""

from facesr_lib.prior.face_prior import FacePrior
from facesr_lib.prior.pulse_gaussian import PulseGaussian
