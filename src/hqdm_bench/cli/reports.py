"""Verbs that turn results into tables and figures, the paper's and the project's own."""

import argparse

from hqdm_bench.cli.options import Context, add_suite
from hqdm_bench.common.errors import BenchError

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    table = verbs.add_parser("table", help="one of the paper's tables, as csv, md and tex")
    add_suite(table)
    table.add_argument("--number", type=int, required=True, choices=(1, 2, 3, 4))
    table.set_defaults(run=_table)

    differences = verbs.add_parser(
        "differences",
        help="what each single change to a method does, paired by training seed",
    )
    add_suite(differences)
    differences.set_defaults(run=_differences)

    comparison = verbs.add_parser(
        "comparison", help="methods against a baseline on every model, paired by training seed"
    )
    add_suite(comparison)
    comparison.set_defaults(run=_comparison)

    methods = verbs.add_parser(
        "methods-table", help="every method of a suite side by side: ranks, grids and costs"
    )
    add_suite(methods)
    methods.set_defaults(run=_methods)

    figure = verbs.add_parser("figure", help="one of the paper's figures, as pdf and png")
    add_suite(figure)
    figure.add_argument("--name", required=True, help="figure of the suite, such as fig04_loss")
    figure.set_defaults(run=_figure)


def _table(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report import write_table

    write_table(arguments.number, arguments.root, context.suite, context.catalogue)


def _differences(arguments: argparse.Namespace) -> None:
    context = _reporting(arguments, "differences")

    from hqdm_bench.report import write_differences

    write_differences(arguments.root, context.suite, context.catalogue)


def _comparison(arguments: argparse.Namespace) -> None:
    context = _reporting(arguments, "comparison")

    from hqdm_bench.report import write_comparison

    write_comparison(arguments.root, context.suite, context.catalogue)


def _methods(arguments: argparse.Namespace) -> None:
    context = _reporting(arguments, "methods")

    from hqdm_bench.report import write_methods

    write_methods(arguments.root, context.suite, context.catalogue)


def _reporting(arguments: argparse.Namespace, name: str) -> Context:
    """The context, if the suite makes the report."""
    context = Context.of(arguments)
    suite = context.suite
    if name not in suite.reports:
        makers = [one.name for one in context.catalogue.suites.values() if name in one.reports]
        compares = "" if name == "methods" else " and say under 'compare' what is set against what"
        raise BenchError(
            f"suite '{suite.name}' has no report '{name}' (suites that have: "
            f"{', '.join(makers) or 'none'}); add it to 'reports' in "
            f"config/suites/{suite.name}.yaml{compares}"
        )
    return context


def _figure(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report import write_figure

    write_figure(arguments.name, arguments.root, context.suite, context.catalogue)
