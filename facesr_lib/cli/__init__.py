"""`facesr`, the command line."""

from facesr_lib.cli.main import main

__all__ = ["main"]
