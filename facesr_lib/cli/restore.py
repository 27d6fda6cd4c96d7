"""`facesr restore` and `facesr methods`."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from facesr_lib.cli import values


def add(commands: Any) -> None:
    """Add the commands and their flags."""
    restore = commands.add_parser("restore", help="restore aligned faces, or enlarge any picture")
    restore.add_argument("photos", nargs="+", type=values.path, metavar="PHOTO", help="low-resolution faces")
    restore.add_argument("--out", type=values.path, required=True, metavar="DIR", help="folder of the results")
    restore.add_argument("--overwrite", action="store_true", help="replace earlier results, though never a photo")
    restore.add_argument("--method", default="pulse", help="`facesr methods` lists them (%(default)s)")
    restore.add_argument("--scale", type=int, help="how much smaller the photos are (the method's own, else 8)")
    restore.add_argument("--kernel", help="how they were made small (what the method is for, mostly bicubic)")
    restore.add_argument("--degrade", action="store_true", help="photos are high-resolution: make them small first")
    restore.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    restore.add_argument("--steps", type=int, help="short for --set steps=; default: the method's own")
    restore.add_argument("--restarts", type=int, help="tries per face, the best is kept: short for --set restarts=")
    restore.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option: `facesr methods METHOD` lists them"
    )
    restore.add_argument("--seed", type=int, default=0)
    restore.add_argument("--device", default="auto")
    restore.set_defaults(run=_restore)

    methods = commands.add_parser("methods", help="what `facesr restore` can do, and the options of each method")
    methods.add_argument("name", nargs="?", metavar="METHOD", help="list its options with their defaults")
    methods.set_defaults(run=_methods)


def _restore(arguments: argparse.Namespace) -> int:
    from facesr_lib import devices, restoration
    from facesr_lib.degrade import Downsample
    from facesr_lib.messages import choose
    from facesr_lib.prior import FacePrior

    method = restoration.METHODS[choose(arguments.method, restoration.METHODS, "method")]
    types, scale = method.types, arguments.scale if arguments.scale is not None else method.scale or 8
    options = {name: number for name in ("steps", "restarts") if (number := getattr(arguments, name)) is not None}
    for assignment in arguments.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value; got {assignment!r}.")
        try:
            options[name] = values.value(text, types[choose(name, types, f"option of {arguments.method}")])
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--set {name}: {error}") from error
        if isinstance(options[name], float) and math.isnan(options[name]):
            raise ValueError(f"--set {name} needs a number; got {text}.")
    devices.keep_freed_memory()
    outcomes = restoration.restore(
        arguments.photos,
        arguments.out,
        FacePrior.load(arguments.prior, arguments.device),
        Downsample(scale, arguments.kernel) if arguments.kernel else method.operator(scale),
        method=arguments.method,
        degrade=arguments.degrade,
        overwrite=arguments.overwrite,
        seed=arguments.seed,
        **options,
    )
    failed = 0
    for outcome in outcomes:
        failed += outcome.output is None
        print(outcome.message, file=sys.stderr if outcome.output is None else sys.stdout, flush=True)
    return int(failed > 0)


def _methods(arguments: argparse.Namespace) -> None:
    from facesr_lib.messages import choose
    from facesr_lib.restoration import METHODS

    for name in [choose(arguments.name, METHODS, "method")] if arguments.name else METHODS:
        print(f"{name}: {METHODS[name].about} Needs: {', '.join(sorted(METHODS[name].needs)) or 'nothing'}.")
    for option, default in METHODS[arguments.name].options.items() if arguments.name else ():
        print(f"    --set {option}={values.text(default)}")
