"""The paper's own numbers, read from ``paper/data``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue import Bits, ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.quantities import METRICS

__all__ = [
    "PAPER_IMAGES",
    "PAPER_TITLES",
    "PaperRow",
    "PaperValue",
    "is_the_papers",
    "paper_rows",
    "read_rows",
]

PAPER_IMAGES = 50_000  # generated images per model, section 5.1

PAPER_TITLES = {
    "fp": "FP",
    "qdiffusion": "Q-Diffusion",
    "ptqd": "PTQD",
    "tfmq": "TFMQ-DM",
    "quest": "QuEST",
    "efficientdm": "EfficientDM",
    "hqdm": "HQ-DM",
}

COLUMNS = ["table", "method", "order", "bits", "metric", "value", "note"]


@dataclass(frozen=True)
class PaperValue:
    """A printed number in the paper's unit (percent for precision and recall).

    Attributes:
        value: None where the paper prints a dash.
        note: empty, or how the dash is read: ``failed`` or ``not given``.
        decimals: digits that are printed.
    """

    value: float | None
    note: str
    decimals: int = 2


@dataclass(frozen=True)
class PaperRow:
    """One row of a table as printed; ``order`` is the Hadamard order k of Table 4."""

    method: str
    bits: Bits
    order: int | None
    values: dict[str, PaperValue]


def paper_rows(root: Path, number: int) -> tuple[PaperRow, ...]:
    """Rows of one of the paper's tables, in its order.

    Args:
        root: project folder, the one that holds ``paper/``.
        number: 1 to 4.

    Raises:
        BenchError: the file is missing or breaks its form.
    """
    return read_rows(root / "paper" / "data" / f"table{number}.csv", {"table": str(number)})


def read_rows(path: Path, wanted: Mapping[str, str]) -> tuple[PaperRow, ...]:
    """Rows of a file of printed numbers, in its order.

    Args:
        path: a csv with the columns of the paper's tables, or with those of ``wanted`` as well.
        wanted: column to the value that lines must have.

    Raises:
        BenchError: the file is missing or breaks its form.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            entries = list(reader)
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist; restore it from the repository") from None
    columns = list(dict.fromkeys((*wanted, *COLUMNS)))
    if reader.fieldnames != columns:
        raise BenchError(f"{path}: columns must be {','.join(columns)}")
    rows: dict[tuple[str, str, str], dict[str, PaperValue]] = {}
    for line, entry in enumerate(entries, start=2):
        if any(entry[key] != value for key, value in wanted.items()):
            continue
        values = rows.setdefault((entry["method"], entry["bits"], entry["order"]), {})
        if entry["metric"] not in METRICS or entry["metric"] in values:
            raise BenchError(f"{path}, line {line}: metric '{entry['metric']}' unknown or repeated")
        values[entry["metric"]] = _value(entry, f"{path}, line {line}")
    return tuple(
        PaperRow(method, Bits.parse(bits), int(order) if order else None, values)
        for (method, bits, order), values in rows.items()
    )


def is_the_papers(
    spec: ModelSpec, protocol: Mapping[str, Any], extractor: Mapping[str, Any]
) -> bool:
    """Whether results are the paper's experiment, so that its numbers can be set beside them."""
    return (
        spec.source == "checkpoint"
        and extractor["name"] == "inception"
        and bool(protocol["images"] == PAPER_IMAGES)
    )


def _value(entry: dict[str, str], where: str) -> PaperValue:
    text, note = entry["value"], entry["note"]
    if bool(text) == bool(note) or note not in ("", "failed", "not given"):
        raise BenchError(f"{where}: a value has no note; a dash is 'failed' or 'not given'")
    try:
        return PaperValue(float(text) if text else None, note, len(text.partition(".")[2]))
    except ValueError:
        raise BenchError(f"{where}: value '{text}' is not a number") from None
