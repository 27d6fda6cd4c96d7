"""`facesr`, the command line: a file per command, its flags beside what they run."""

from facesr_lib.cli.main import main
