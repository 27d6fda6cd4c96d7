"""`facesr table` and `facesr bench`."""

from __future__ import annotations

import argparse
from typing import Any

from facesr_lib.cli import values


def add(commands: Any) -> None:
    """Add the commands and their flags."""
    table = commands.add_parser("table", help="measure a table of a paper on the held-out faces")
    table.add_argument("name", help="such as dse-1 or rls-2; an unknown name lists all")
    table.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    table.add_argument("--faces", type=int, default=50, help="how many (%(default)s)")
    table.add_argument("--batch", type=int, default=10, help="searched at once (%(default)s)")
    table.add_argument("--effort", type=float, default=1.0, help="multiplies every method's steps (%(default)s)")
    table.add_argument("--seed", type=int, default=0)
    table.add_argument("--device", default="auto")
    table.add_argument("--jobs", type=int, metavar="N", help="rows measured at once (one a core; on a GPU one)")
    table.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="measure on a Ray cluster, host:port; without an address on one of this machine",
    )
    table.add_argument("--out", type=values.path, metavar="CSV", help="also write every single value")
    table.add_argument("--overwrite", action="store_true", help="replace the file of an earlier run")
    table.set_defaults(run=_table)

    bench = commands.add_parser("bench", help="measure the speed of this machine")
    bench.add_argument("--device", default="auto")
    bench.add_argument("--quick", action="store_true", help="fewer repetitions")
    bench.set_defaults(run=_bench)


def _table(arguments: argparse.Namespace) -> None:
    from facesr_lib import chapter, devices, files, metrics
    from facesr_lib.evaluation import records, report, run, sweep
    from facesr_lib.evaluation.papers import TABLES
    from facesr_lib.prior import FacePrior

    if arguments.out:
        files.check_writable(arguments.out, overwrite=arguments.overwrite)
    devices.keep_freed_memory()
    prior = FacePrior.load(arguments.prior, arguments.device)
    budget = {name: getattr(arguments, name) for name in ("faces", "batch", "effort", "seed")}
    spread = sweep.on_processes(arguments.jobs) if arguments.ray is None else sweep.on_ray(arguments.ray or None)
    results = run.run(arguments.name, prior, map=spread, **budget)
    if results.origin.faces_from == chapter.SAMPLES:
        print(
            "The faces on which the book measures are not here. These are the prior's own samples, which are easier "
            "for every search (`facesr assets fetch faces-test` brings the others).\n"
        )
    print(f"{arguments.name}: {TABLES[arguments.name].about} ({results.origin.budget()})\n")
    print(shown := report.table(arguments.name, results))
    for name, missing in metrics.available().items():
        if missing and name in shown.columns:
            print(f"{name} is unavailable: {missing}")
    if arguments.out:  # the table is shown already, should this fail
        records.write(arguments.out, results, overwrite=arguments.overwrite)


def _bench(arguments: argparse.Namespace) -> None:
    from facesr_lib.benchmark import networks, photos, search, training
    from facesr_lib.tables import Table

    for measure in (search.run, search.methods, training.run, networks.run, photos.run):
        print(Table.of(measure(device=arguments.device, quick=arguments.quick)), flush=True)
        print()
