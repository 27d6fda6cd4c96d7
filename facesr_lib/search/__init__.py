"""Latent searches: find a face whose small version is the picture that was given.

Every method is called as ``search.pulse(prior, lowres, operator, **options)``, with options of its own and these:

prior : FacePrior
    Where the faces live; left as it was, and threads may share it.
lowres : (N, 3, h, w)
    What is given, in [0, 1]; any floating-point type, on any device.
operator : callable
    HR → LR, differentiable, such as `degrade.Downsample`.
seed : int or N ints
    Image i draws from (seed, i), or from a seed of its own.
steps, record_every, callback, progress
    Of the loop: see `run_search`.

It returns a `SearchResult`, whatever mode, default type or autocast torch is in, and leaves those as they were.
"""

from facesr_lib.search.brgm import brgm
from facesr_lib.search.dse import dse
from facesr_lib.search.engine import History, SearchResult, run_search
from facesr_lib.search.mganprior import mganprior
from facesr_lib.search.pulse import pulse
from facesr_lib.search.rls import rls, rls_plus
