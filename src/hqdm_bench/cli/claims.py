"""Verb that grades the paper's sentences on a suite's results."""

import argparse

from hqdm_bench.cli.options import Context, add_suite

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    claims = verbs.add_parser(
        "claims", help="every checkable sentence of the paper with its verdict, as json and md"
    )
    add_suite(claims)
    claims.set_defaults(run=_claims)


def _claims(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)

    from hqdm_bench.report.claims import write_claims

    write_claims(arguments.root, context.suite, context.catalogue)
