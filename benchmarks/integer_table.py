"""Print what `integer.py` measured as the tables of the README and of docs/integer.md.

python benchmarks/integer_table.py benchmarks/results/integer.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from integer_plot import TITLES

GIGA, MEGA = 1e9, 1e6
TIMES = "\N{MULTIPLICATION SIGN}"
KINDS = {"conv2d": "convolutions", "linear": "linear layers"}


def whole(result: dict[str, Any]) -> str:
    """Seconds and working memory of a prediction, by form."""
    columns = [
        (name, batch) for name, entry in result["models"].items() for batch in entry["end_to_end"]
    ]
    heads = [f"{name}, batch {batch}" for name, batch in columns]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(columns)}"]
    for form, title in TITLES.items():
        cells = []
        for name, batch in columns:
            times = result["models"][name]["end_to_end"][batch]
            own = times[form]["seconds"]
            ratio = own / times["integer"]["seconds"]
            memory = times[form]["working_bytes"] / MEGA
            cells.append(f"{own:.2f} s ({TIMES}{ratio:.1f}), {memory:.0f} MB")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def layers(result: dict[str, Any]) -> str:
    """Milliseconds of all layers of a kind, and what share of the peak their products reach."""
    head = (
        "| | 10⁹ MACs | float32 | bfloat16 | fake, frozen | integer | of it codes | of it product "
    )
    lines = [head + "| product, share of the int8 peak |", f"|---|{'---|' * 8}"]
    for name, model in result["models"].items():
        for kind, title in KINDS.items():
            own = [layer for layer in model["layers"] if layer["kind"] == kind]
            if not own:
                continue
            macs = sum(layer["macs"] * layer["count"] for layer in own) / GIGA
            parts = ("float32", "bfloat16", "fake", "integer", "encode", "multiply")
            times = {part: sum(x[part] * x["count"] for x in own) for part in parts}
            share = macs / times["multiply"] / result["peaks"]["int8"]
            cells = " | ".join(f"{1e3 * time:.0f}" for time in times.values())
            lines.append(f"| {name}, {title} | {macs:.1f} | {cells} | {share:.2f} |")
    return "\n".join(lines)


def sizes(result: dict[str, Any]) -> str:
    """Megabytes of the packed students."""
    parts = ("weights", "grids", "tables", "biases", "full_precision", "packed", "float32")
    heads = " | ".join(part.replace("_", " ") for part in (*parts, "bfloat16"))
    lines = [f"| | {heads} |", f"|---|{'---|' * (len(parts) + 1)}"]
    for name, model in result["models"].items():
        cells = " | ".join(f"{model['bytes'][part] / MEGA:.1f}" for part in (*parts, "bfloat16"))
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    result = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    for table in (whole, layers, sizes):
        print(table(result), end="\n\n")


if __name__ == "__main__":
    main()
