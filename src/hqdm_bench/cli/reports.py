"""Verbs that turn results into the paper's tables and figures."""

import argparse

from hqdm_bench.cli.options import Context, add_suite

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    table = verbs.add_parser("table", help="one of the paper's tables, as csv, md and tex")
    add_suite(table)
    table.add_argument("--number", type=int, required=True, choices=(1, 2, 3, 4))
    table.set_defaults(run=_table)

    figure = verbs.add_parser("figure", help="one of the paper's figures, as pdf and png")
    add_suite(figure)
    figure.add_argument("--name", required=True, help="figure of the suite, such as fig04_loss")
    figure.set_defaults(run=_figure)


def _table(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report import write_table

    write_table(arguments.number, arguments.root, context.suite, context.catalogue)


def _figure(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report import write_figure

    write_figure(arguments.name, arguments.root, context.suite, context.catalogue)
