"""The book: chapters executed, then built into a site that needs nothing from outside."""

from facesr_lib.publishing.execute import BookError, Run, chapters, execute, machine, repository
from facesr_lib.publishing.site import build
