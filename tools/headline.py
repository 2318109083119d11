"""Print a table of the README from a published run; a test compares them.

python tools/headline.py results/published/mini/tables/table1.csv
python tools/headline.py results/published/plus/tables/comparison.csv
python tools/headline.py results/published/mini/tables/methods.csv
"""

import csv
import sys
from pathlib import Path

from hqdm_bench.catalogue import load_catalogue

ROOT = Path(__file__).resolve().parents[1]
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

# metric -> (head, digits), of the comparison
CHANGES = {
    "noise_error": ("Noise error ↓", 2),
    "psnr_median": ("PSNR to FP (dB) ↑", 1),
    "fid": ("FID-like ↓", 3),
}
MODELS = {
    "mini-imagenet": "imagenet",
    "mini-bedrooms": "bedrooms",
    "mini-churches": "churches",
}
SIDE_BY_SIDE = ("w8a8", "w4a8", "w4a4")
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


def comparison(path: Path) -> str:
    """The changes of a comparison as Markdown: a row a model and bit-width.

    What is not better is said behind the interval.
    """
    rows = _rows(path)
    heads = [
        f"{head}, against {title}" for head, _ in CHANGES.values() for title in METHODS.values()
    ]
    lines = ["| mini- | W/A | " + " | ".join(heads) + " |"]
    lines.append("|---|---|" + "---|" * len(heads))
    for model, short in MODELS.items():
        for bits in BITS:
            found = {
                (row["metric"], row["against"]): row
                for row in rows
                if (row["model"], row["bits"]) == (model, bits)
            }
            cells = [
                _change(found[metric, against], digits)
                for metric, (_, digits) in CHANGES.items()
                for against in METHODS
            ]
            lines.append(_line(short, bits.upper(), cells))
    return "\n".join(lines) + "\n"


def _change(row: dict[str, str], digits: int) -> str:
    middle, low, high = (float(row[f"change_{part}"]) for part in ("mean", "low", "high"))
    if row["kind"] == "ratio":
        text = f"{TIMES}{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    else:
        text = f"{middle:+.{digits}f} ± {high - middle:.{digits}f}".replace("-", MINUS)
    return text if row["verdict"] == "better" else f"{text}, *{row['verdict']}*"


def side_by_side(path: Path) -> str:
    """Ranks and noise errors of the methods of a report `methods` as Markdown, at three widths.

    Ordered by the error at the last of them.
    """
    catalogue = load_catalogue(ROOT)
    rows = [row for row in _rows(path) if row["model"] == "mini-imagenet"]
    found = {(row["method"], row["bits"]): row for row in rows if row["metric"] == "noise_error"}
    methods = [m for m, bits in found if bits == SIDE_BY_SIDE[-1]]
    methods.sort(key=lambda method: float(found[method, SIDE_BY_SIDE[-1]]["mean"]))
    widths = " | ".join(bits.upper() for bits in SIDE_BY_SIDE)
    at = SIDE_BY_SIDE[-1].upper()
    lines = [f"| | {widths} | low-bit MACs ({at}) | CPU time ({at}) |", "|---|" + "---|" * 5]
    for method in methods:
        cells = [_ranked(found[method, bits]) for bits in SIDE_BY_SIDE]
        last = found[method, SIDE_BY_SIDE[-1]]
        share, seconds = 100 * float(last["mac_share"]), float(last["cpu_seconds"])
        cells += [f"{share:.1f} %", f"{seconds:.0f} s"]
        lines.append(f"| {catalogue.method(method).title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _ranked(row: dict[str, str]) -> str:
    first, last = row["rank_first"], row["rank_last"]
    rank = first if first == last else f"{first} to {last}"
    return f"{float(row['mean']):.5f} ({rank})"


def headline(path: Path) -> str:
    """The table as Markdown: a row a method, then the verdicts of the paired comparison."""
    rows = _rows(path)
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


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _value(row: dict[str, str], digits: int) -> str:
    return f"{float(row['measured']):.{digits}f} ± {float(row['half_width']):.{digits}f}"


def _line(bits: str, title: str, cells: list[str]) -> str:
    return f"| {bits} | {title} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    kinds = {"comparison": comparison, "methods": side_by_side}
    sys.stdout.write(kinds.get(source.stem, headline)(source))
