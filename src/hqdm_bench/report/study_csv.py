"""Studies as long csv: one paired quantity a line, full precision."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from hqdm_bench.report.effects import Span
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.study import Group, Pair
from hqdm_bench.report.table_csv import FOOTPRINT_COLUMNS, footprint_cells

__all__ = ["STUDY_COLUMNS", "study_csv"]

SPANS = ("method", "against", "change")
STUDY_COLUMNS = (
    "suite",
    "model",
    "bits",
    "extractor",
    "method",
    "against",
    "changes",  # options of `against`, then of `method`
    "layers",  # which are low-bit, where that differs
    "metric",
    "unit",
    "kind",  # of the change: difference (method - against) or ratio (method / against)
    "n",
    "seeds",
    *(f"{name}_{end}" for name in SPANS for end in ("mean", "low", "high")),
    "verdict",
    *(f"{name}_{key}" for name in SPANS[:2] for key in FOOTPRINT_COLUMNS),
)


def study_csv(suite: str, extractor: str, pairs: Iterable[tuple[Group, Pair]]) -> str:
    """Every quantity of every pair; percent and dB as in the printed tables.

    Args:
        suite: name of the suite.
        extractor: behind the features.
        pairs: in the order of the lines, each with the group it is from.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, STUDY_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for group, pair in pairs:
        common = {"suite": suite, "extractor": extractor}
        common |= {"model": group.model.name, "bits": str(group.bits)}
        for line in _lines(pair):
            writer.writerow(common | line)
    return buffer.getvalue()


def _lines(pair: Pair) -> Iterator[dict[str, object]]:
    common: dict[str, object] = {
        "method": pair.method.method,
        "against": pair.against.method,
        "changes": "; ".join(pair.changes),
        "layers": pair.layers,
        **footprint_cells(pair.method.footprint, "method_"),
        **footprint_cells(pair.against.footprint, "against_"),
    }
    for key, effect in pair.effects.items():
        kind = quantity(key)
        yield common | {
            "metric": key,
            "unit": kind.unit,
            "kind": "ratio" if kind.ratio else "difference",
            "n": len(effect.seeds),
            "seeds": " ".join(map(str, effect.seeds)),
            **_span("method", effect.method),
            **_span("against", effect.against),
            **_span("change", effect.change),
            "verdict": effect.verdict,
        }


def _span(name: str, found: Span) -> dict[str, object]:
    return {f"{name}_{end}": value for end, value in asdict(found).items()}
