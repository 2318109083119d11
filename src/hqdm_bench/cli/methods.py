"""The verb that says which methods there are and what their options may be."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import TYPE_CHECKING

from hqdm_bench.common.errors import BenchError

if TYPE_CHECKING:
    from hqdm_bench.methods import Method

__all__ = ["add_verbs"]

EXAMPLES = """\
examples:
  hqdm-bench methods
      every method with its title, paper and presets
  hqdm-bench methods hqdm
      its options: allowed values, default, and what the other presets have instead
  hqdm-bench methods hqdm --schema
      JSON schema of the options of an entry in config/methods.yaml

These are implementations; `hqdm-bench list methods` lists the entries of config/methods.yaml.
"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    methods = verbs.add_parser(
        "methods",
        help="methods that can be run, and their options",
        description="Methods that can be run, and their options.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    methods.add_argument("name", nargs="?", metavar="NAME", help="method, such as hqdm")
    methods.add_argument("--schema", action="store_true", help="JSON schema of its options")
    methods.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> None:
    from hqdm_bench.methods import available_methods, get_method  # loads torch

    if arguments.name is None:
        if arguments.schema:
            raise BenchError("--schema is of one method; name it")
        print("\n".join(_listing(list(available_methods().values()))))
        return
    method = get_method(arguments.name)
    if arguments.schema:
        print(json.dumps(method.options.schema(method.name), indent=2))
    else:
        print("\n".join(_page(method)))


def _listing(methods: list[Method]) -> list[str]:
    width = max(len(method.name) for method in methods)
    indent = " " * (width + 2)
    lines = []
    for method in methods:
        lines.append(f"{method.name:<{width}}  {method.title}: {method.paper}")
        lines.append(f"{indent}presets: {', '.join(method.options.presets())}")
    return lines


def _page(method: Method) -> list[str]:
    """Title, then an option a paragraph."""
    lines = [f"{method.title}: {method.paper}"]
    options = method.options
    presets = {name: preset.resolved() for name, preset in options.presets().items()}
    if not fields(options):
        return [*lines, "no options"]
    allowed = options.allowed()
    for entry in fields(options):
        values = allowed.get(entry.name)
        says = " | ".join(map(str, values)) if values else entry.metadata["says"]
        lines += ["", entry.name, f"  allowed: {says}", f"  default: {entry.default}"]
        lines += [
            f"  {name}: {preset[entry.name]}"
            for name, preset in presets.items()
            if preset[entry.name] != entry.default
        ]
    return lines
