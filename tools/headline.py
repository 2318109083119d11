"""Print the README's table of HQ-DM against EfficientDM from a published run; a test compares them.

python tools/headline.py results/published/mini/tables/table1.csv
"""

import csv
import sys
from pathlib import Path

BITS = ("w4a4", "w4a3", "w8a3")
METHODS = {"efficientdm": "EfficientDM", "hqdm": "HQ-DM"}
# metric -> (head, digits)
METRICS = {
    "fid": ("FID-like ↓", 2),
    "sfid": ("sFID-like ↓", 1),
    "precision": ("Precision (%) ↑", 1),
    "noise_error": ("Noise error ↓", 4),
    "psnr_median": ("PSNR to FP (dB) ↑", 1),
}


def headline(path: Path) -> str:
    """The table as Markdown: a row a method, then the verdicts of the paired comparison."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    lines = ["| W/A | | " + " | ".join(head for head, _ in METRICS.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(METRICS))
    for bits in BITS:
        for method, title in METHODS.items():
            values = {
                row["metric"]: row
                for row in rows
                if (row["section"], row["method"], row["bits"]) == ("values", method, bits)
            }
            cells = [_value(values[metric], digits) for metric, (_, digits) in METRICS.items()]
            lines.append(_line(bits.upper(), title, cells))
        verdicts = {
            row["metric"]: row["verdict"]
            for row in rows
            if (row["section"], row["bits"], row["against"]) == ("paired", bits, "efficientdm")
        }
        lines.append(_line("", "*paired*", [f"*{verdicts[metric]}*" for metric in METRICS]))
    return "\n".join(lines) + "\n"


def _value(row: dict[str, str], digits: int) -> str:
    return f"{float(row['ours']):.{digits}f} ± {float(row['half_width']):.{digits}f}"


def _line(bits: str, title: str, cells: list[str]) -> str:
    return f"| {bits} | {title} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(headline(Path(sys.argv[1])))
