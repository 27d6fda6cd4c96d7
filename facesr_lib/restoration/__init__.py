"""Pictures in, restored pictures out."""

from facesr_lib.restoration.aligned import Outcome, restore
from facesr_lib.restoration.methods import METHODS, Method, Restored, check

__all__ = ["METHODS", "Method", "Outcome", "Restored", "check", "restore"]
