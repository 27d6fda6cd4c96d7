"""`facesr restore` and `facesr methods`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from facesr_lib.cli import values
from facesr_lib.messages import choose


def add(commands: Any) -> None:
    """Add the commands and their flags."""
    restore = commands.add_parser("restore", help="restore the faces of photographs, aligned faces, or any picture")
    restore.add_argument("photos", nargs="+", type=values.path, metavar="PHOTO")
    restore.add_argument("--out", type=values.path, required=True, metavar="DIR", help="folder of the results")
    restore.add_argument("--overwrite", action="store_true", help="replace earlier results, though never a photo")
    restore.add_argument("--method", help="`facesr methods` lists them (esrgan; of aligned faces pulse)")
    restore.add_argument("--scale", type=int, help="how much to enlarge (2; of aligned faces the method's own, else 8)")
    restore.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    restore.add_argument("--steps", type=int, help="short for --set steps=; default: the method's own")
    restore.add_argument("--restarts", type=int, help="tries per face, the best is kept: short for --set restarts=")
    restore.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option: `facesr methods METHOD` lists them"
    )
    restore.add_argument("--seed", type=int, default=0)
    restore.add_argument("--device", default="auto")

    whole = restore.add_argument_group("whole photographs")
    numbers: dict[str, Any] = {"type": partial(values.value, hint=Sequence[int]), "metavar": "3,5"}
    whole.add_argument("--only", **numbers, help="restore these faces alone, numbered from the left")
    whole.add_argument("--except", dest="leave", **numbers, help="restore all but these")
    whole.add_argument("--strength", type=float, help="from 0, the photograph itself, to 1 (1)")
    whole.add_argument(
        "--box",
        dest="boxes",
        action="append",
        type=partial(values.value, hint=Sequence[float]),
        metavar="LEFT,TOP,WIDTH,HEIGHT",
        help="a face that is found by hand, in pixels; once for each (one that the border cuts: --box=-9,…)",
    )
    whole.add_argument("--detector", help="yunet or dlib (the first that is here)")
    whole.add_argument("--background", metavar="METHOD", help="what enlarges the rest (bicubic)")
    whole.add_argument("--smallest", type=float, metavar="PIXELS", help="leave faces whose crop is less wide (32)")
    whole.add_argument("--grain", action="store_true", default=None, help="give restored faces the photograph's noise")

    aligned = restore.add_argument_group("faces that are cut out already, or pictures without")
    aligned.add_argument("--aligned", action="store_true", help="a photo is one face, or the method takes any picture")
    aligned.add_argument("--kernel", help="how they were made small (what the method is for, mostly bicubic)")
    aligned.add_argument(
        "--degrade", action="store_true", default=None, help="photos are high-resolution: make them small first"
    )
    restore.set_defaults(run=_restore)

    methods = commands.add_parser("methods", help="what `facesr restore` can do, and the options of each method")
    methods.add_argument("name", nargs="?", metavar="METHOD", help="list its options with their defaults")
    methods.set_defaults(run=_methods)


WHOLE = ("only", "leave", "strength", "boxes", "detector", "background", "smallest", "grain")
ALIGNED = ("kernel", "degrade")


def _restore(arguments: argparse.Namespace) -> int:
    try:  # a photo's own trouble is in its outcome: what is raised is about what is asked for
        codes = list(_told(arguments))
    except ValueError as error:
        raise values.Mistake(str(error)) from error
    return 2 if min(codes) == 2 else min(max(codes), 1)


def _told(arguments: argparse.Namespace) -> Iterator[int]:
    """Restore the photos and tell of each as it is done; exit codes, 2 if what is asked for cannot be had of it."""
    from facesr_lib import devices, restoration
    from facesr_lib.degrade import Downsample
    from facesr_lib.prior import FacePrior

    name = arguments.method or ("pulse" if arguments.aligned else "esrgan")
    method = restoration.METHODS[choose(name, restoration.METHODS, "method")]
    mine, others = (ALIGNED, WHOLE) if arguments.aligned else (WHOLE, ALIGNED)
    if foreign := [flag for flag in others if getattr(arguments, flag) is not None]:
        flags = ", ".join("--" + {"leave": "except", "boxes": "box"}.get(flag, flag) for flag in foreign)
        way = "whole photographs: leave --aligned out" if arguments.aligned else "faces cut out already: say --aligned"
        raise ValueError(f"what {flags} says is for {way}, or leave it out.")
    given = {flag: value for flag in mine if (value := getattr(arguments, flag)) is not None}
    common = {"method": name, "overwrite": arguments.overwrite, "seed": arguments.seed, **_options(arguments, name)}
    if not arguments.aligned:  # what is wrong is told before anything is loaded
        given |= {"scale": 2 if arguments.scale is None else arguments.scale}
        restoration.PhotoChoices(seed=arguments.seed, **given)
    prior = FacePrior.load(arguments.prior, arguments.device)
    devices.keep_freed_memory()
    outcomes: Iterator[restoration.Outcome]
    if arguments.aligned:
        scale = (method.scale or 8) if arguments.scale is None else arguments.scale
        kernel = given.pop("kernel", None)
        operator = Downsample(scale, kernel) if kernel else method.operator(scale)
        outcomes = restoration.restore(arguments.photos, arguments.out, prior, operator, **given, **common)
    else:
        outcomes = restoration.restore_photos(arguments.photos, arguments.out, prior=prior, **given, **common)
    for outcome in outcomes:
        print(outcome.message, file=sys.stderr if outcome.error else sys.stdout, flush=True)
        yield 2 if outcome.mistaken else int(bool(outcome.error))


def _options(arguments: argparse.Namespace, method: str) -> dict[str, Any]:
    """The method's own options, as --steps, --restarts and --set give them."""
    from facesr_lib.restoration import METHODS

    types = METHODS[method].types
    options = {name: number for name in ("steps", "restarts") if (number := getattr(arguments, name)) is not None}
    for assignment in arguments.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value; got {assignment!r}.")
        try:
            options[name] = values.value(text, types[choose(name, types, f"option of {method}")])
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--set {name}: {error}") from error
        if isinstance(options[name], float) and math.isnan(options[name]):
            raise ValueError(f"--set {name} needs a number; got {text}.")
    return options


def _methods(arguments: argparse.Namespace) -> None:
    from facesr_lib.restoration import METHODS

    for name in [choose(arguments.name, METHODS, "method")] if arguments.name else METHODS:
        print(f"{name}: {METHODS[name].about} Needs: {', '.join(sorted(METHODS[name].needs)) or 'nothing'}.")
    for option, default in METHODS[arguments.name].options.items() if arguments.name else ():
        print(f"    --set {option}={values.text(default)}")
