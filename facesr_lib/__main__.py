"""``python -m facesr_lib`` is `facesr`."""

import sys

from facesr_lib.cli import main

sys.exit(main())
