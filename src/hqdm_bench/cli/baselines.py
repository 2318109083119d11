"""Verbs for full-precision baselines: check them against known values, compare them."""

import argparse

from hqdm_bench.cli.options import Context, add_model, add_suite
from hqdm_bench.common.files import write_json

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    accept = verbs.add_parser(
        "accept", help="check that a full-precision model scores as others report"
    )
    add_model(accept)
    accept.add_argument(
        "--policy",
        choices=("require", "report"),
        default="require",
        help="stop if a metric is out of its range (default), or only write it down",
    )
    accept.set_defaults(run=_accept)

    baselines = verbs.add_parser(
        "baselines", help="table of a suite's full-precision image sets beside the paper's rows"
    )
    add_suite(baselines)
    baselines.set_defaults(run=_baselines)


def _accept(arguments: argparse.Namespace) -> None:
    from hqdm_bench.report.acceptance import judge

    context = Context.of(arguments)
    acceptance = judge(context.layout, context.suite.model(arguments.model))
    if arguments.policy == "require":
        acceptance.require()
    path = context.layout.acceptance(context.suite.name, arguments.model)
    write_json(path, acceptance.asdict())


def _baselines(arguments: argparse.Namespace) -> None:
    from hqdm_bench.report.baselines import write_baselines

    context = Context.of(arguments)
    write_baselines(arguments.root, context.suite, context.catalogue)
