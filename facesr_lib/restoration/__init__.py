"""Pictures in, restored pictures out."""

from facesr_lib.restoration.aligned import Outcome, restore

__all__ = ["Outcome", "restore"]
