"""`facesr`: argument parsing only; the work is done a floor below."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 1 if something could not be done, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError) as error:
        print(f"facesr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("facesr: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="facesr", description="Face super-resolution, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    restore = commands.add_parser("restore", help="restore aligned faces")
    restore.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="low-resolution faces")
    restore.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    restore.add_argument("--method", default="pulse", help="search method (%(default)s)")
    restore.add_argument("--scale", type=int, default=8, help="how much smaller the photos are (%(default)s)")
    restore.add_argument("--kernel", default="bicubic", help="how they were made small (%(default)s)")
    restore.add_argument("--degrade", action="store_true", help="photos are high-resolution: make them small first")
    restore.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    restore.add_argument("--steps", type=int, help="default: the method's own")
    restore.add_argument("--restarts", type=int, help="tries per face; the best is kept (1)")
    restore.add_argument("--seed", type=int, default=0)
    restore.add_argument("--device", default="auto")
    restore.set_defaults(run=_restore)

    assets = commands.add_parser("assets", help="weights and data: list, fetch, verify")
    actions = assets.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is and what is here").set_defaults(run=_assets_list)
    fetch = actions.add_parser("fetch", help="download and check")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.set_defaults(run=_assets_fetch)
    verify = actions.add_parser("verify", help="compare what is here with the registry")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that is here")
    verify.set_defaults(run=_assets_verify)

    book = commands.add_parser("book", help="execute the chapters and build the site")
    book.add_argument("--profile", choices=("smoke", "read", "paper"), default="read")
    book.add_argument("--jobs", type=int, default=2, help="chapters executed at once (%(default)s)")
    book.add_argument("--execute-only", action="store_true", help="run the chapters, build no site")
    book.add_argument("chapters", nargs="*", help="some chapters only (implies --execute-only)")
    book.set_defaults(run=_book)

    train = commands.add_parser("train", help="train a network, or go on training it")
    networks = train.add_subparsers(required=True, metavar="NETWORK")
    prior = networks.add_parser("prior", help="a face prior (StyleGAN2)")
    prior.add_argument("--faces", type=Path, required=True, metavar="DIR", help="folder of aligned faces")
    prior.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    prior.add_argument("--resolution", type=int, choices=(64, 128, 256), default=64)
    prior.add_argument("--hours", type=float, required=True)
    prior.add_argument("--batch", type=int, default=32)
    prior.add_argument("--augment", type=float, default=1.0, help="probability; negative: adaptive (%(default)s)")
    prior.add_argument("--start", metavar="PRIOR", help="begin with these networks: registry name or checkpoint")
    prior.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    prior.add_argument("--devices", type=int, default=1, help="processes, one per GPU (%(default)s)")
    prior.add_argument("--seed", type=int, default=0)
    prior.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    prior.set_defaults(run=_train_prior)

    flow = networks.add_parser("flow", help="the flow that Gaussianises a prior's codes")
    flow.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    flow.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    flow.add_argument("--hours", type=float, required=True)
    flow.add_argument("--hidden", type=int, default=256, help="width; the paper's is 1024 (%(default)s)")
    flow.add_argument("--device", default="auto")
    flow.add_argument("--seed", type=int, default=0)
    flow.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    flow.set_defaults(run=_train_flow)

    table = commands.add_parser("table", help="measure a table of a paper on the held-out faces")
    table.add_argument("name", help="such as dse-1 or rls-2; an unknown name lists all")
    table.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    table.add_argument("--faces", type=int, default=50, help="how many (%(default)s)")
    table.add_argument("--batch", type=int, default=10, help="searched at once (%(default)s)")
    table.add_argument("--effort", type=float, default=1.0, help="multiplies every method's steps (%(default)s)")
    table.add_argument("--seed", type=int, default=0)
    table.add_argument("--device", default="auto")
    table.add_argument("--out", type=Path, metavar="CSV", help="also write every single value")
    table.set_defaults(run=_table)

    bench = commands.add_parser("bench", help="measure the speed of this machine")
    bench.add_argument("--device", default="auto")
    bench.add_argument("--quick", action="store_true", help="fewer repetitions")
    bench.set_defaults(run=_bench)
    return parser


def _restore(arguments: argparse.Namespace) -> int:
    from facesr_lib import restoration
    from facesr_lib.degrade import Downsample
    from facesr_lib.prior import FacePrior

    prior = FacePrior.load(arguments.prior, arguments.device)
    options = {name: value for name in ("steps", "restarts") if (value := getattr(arguments, name)) is not None}
    outcomes = restoration.restore(
        arguments.photos,
        arguments.out,
        prior,
        Downsample(arguments.scale, arguments.kernel),
        method=arguments.method,
        degrade=arguments.degrade,
        seed=arguments.seed,
        **options,
    )
    failed = 0
    for outcome in outcomes:
        failed += outcome.output is None
        print(outcome.message, file=sys.stderr if outcome.output is None else sys.stdout)
    return int(failed > 0)


def _assets_list(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets

    print(assets.table())


def _assets_fetch(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets

    for name in arguments.names:
        print(f"{name}: {assets.fetch(name)}")


def _assets_verify(arguments: argparse.Namespace) -> int:
    from facesr_lib import assets

    found = {name: assets.verify(name) for name in arguments.names or assets.names()}
    if not arguments.names:
        found = {name: status for name, status in found.items() if status != "missing"}
    for name, status in found.items():
        print(f"{name}: {status}")
    return int(any(status not in ("ok", "unchecked") for status in found.values()))


def _book(arguments: argparse.Namespace) -> None:
    from facesr_lib import publishing

    if arguments.execute_only or arguments.chapters:
        publishing.execute(arguments.chapters, profile=arguments.profile, jobs=arguments.jobs)
    else:
        print(publishing.build(profile=arguments.profile, jobs=arguments.jobs))


def _train_prior(arguments: argparse.Namespace) -> None:
    from facesr_lib.prior import FacePrior
    from facesr_lib.training import stylegan2 as prior

    config = prior.Config(
        resolution=arguments.resolution, batch=arguments.batch, augment=arguments.augment, seed=arguments.seed
    )
    report = prior.train(
        arguments.faces,
        arguments.out,
        config,
        hours=arguments.hours,
        resume=arguments.resume,
        start=FacePrior.load(arguments.start) if arguments.start else None,
        devices=arguments.devices,
        bf16=arguments.bf16,
    )
    ended = "interrupted" if report.interrupted else "done"
    print(f"{ended} after {report.images_seen} images; {arguments.out / prior.PRIOR} is the moving average")


def _train_flow(arguments: argparse.Namespace) -> None:
    from facesr_lib.prior import FacePrior
    from facesr_lib.training import flow

    prior = FacePrior.load(arguments.prior, arguments.device)
    config = flow.Config(hidden=arguments.hidden, seed=arguments.seed)
    report = flow.train(prior, arguments.out, config, hours=arguments.hours, resume=arguments.resume)
    prior.save(arguments.out / "prior.safetensors")
    ended = "interrupted" if report.interrupted else "done"
    print(f"{ended} after {report.images_seen} codes; {arguments.out / 'prior.safetensors'} is the prior with its flow")


def _table(arguments: argparse.Namespace) -> None:
    from facesr_lib.evaluation import run as experiments
    from facesr_lib.prior import FacePrior
    from facesr_lib.tables import markdown

    prior = FacePrior.load(arguments.prior, arguments.device)
    budget = {name: getattr(arguments, name) for name in ("faces", "batch", "effort", "seed")}
    records = experiments.run(arguments.name, prior, **budget)
    note = ", ".join(f"{name} {value}" for name, value in ({"prior": prior.name} | budget).items())
    if arguments.out:
        experiments.write(arguments.out, records, note)
    print(f"{arguments.name}: {experiments.EXPERIMENTS[arguments.name].about} ({note})\n")
    print(markdown(*experiments.table(arguments.name, records, prior.resolution)))


def _bench(arguments: argparse.Namespace) -> None:
    from facesr_lib.benchmark import search as benchmark
    from facesr_lib.benchmark import training as throughput

    options = {"device": arguments.device, "quick": arguments.quick}
    for measure in (benchmark.run, benchmark.methods, throughput.run):
        print(benchmark.table(measure(**options)), flush=True)
        print()
