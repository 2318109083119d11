"""Verb that gathers a suite's results in one HTML page."""

import argparse

from hqdm_bench.cli.options import Context, add_suite

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    page = verbs.add_parser(
        "page", help="tables, claims, images, outliers and protocol of a suite in one HTML file"
    )
    add_suite(page)
    page.set_defaults(run=_page)


def _page(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report.page import write_suite_page

    write_suite_page(arguments.root, context.suite, context.catalogue)
