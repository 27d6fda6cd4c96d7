"""Pictures in, restored pictures out."""

from facesr_lib.restoration.aligned import restore
from facesr_lib.restoration.methods import METHODS, Method, Restored, check
from facesr_lib.restoration.outputs import Outcome
from facesr_lib.restoration.photo import PhotoChoices, PhotoFace, RestoredPhoto, restore_photo
from facesr_lib.restoration.whole import PhotoOutcome, restore_photos
