"""Tables as long csv: one number a line, full precision."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from hqdm_bench.report.estimates import Estimate
from hqdm_bench.report.footprint import Footprint
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.table_model import Row, Table, difference

__all__ = ["CSV_COLUMNS", "FOOTPRINT_COLUMNS", "csv_text", "footprint_cells"]

FOOTPRINT_COLUMNS = ("mac_share", "weight_share", "packed_bytes", "bops")  # at the row's bits
CSV_COLUMNS = (
    "section",  # values or paired
    "table",
    "suite",
    "model",
    "extractor",
    "comparable",
    "method",
    "against",  # paired: the method that is subtracted
    "order",
    "bits",
    "metric",
    "unit",
    "quoted",
    "quoted_note",
    "quoted_from",  # hqdm_run: the paper's own run, hqdm_cited: cited by it, else another paper
    "n",
    "measured",  # paired: the mean difference
    "half_width",  # of a 95 % interval over seeds
    "low",  # end of the 95 % interval
    "high",
    "source",  # what the interval is over: seeds, or images of one seed
    "best",  # values: yes where it is ahead of every other measured row at its bits
    "measured_minus_quoted",
    "verdict",
    *FOOTPRINT_COLUMNS,
    "layers",  # which are low-bit, where that is not the table's rule
    "grids",  # of weights; of inputs
    "remarks",  # what else sets the student apart
)


def csv_text(tables: Sequence[Table]) -> str:
    """All models' tables under one head; percent and dB as in the printed tables."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        common = {
            "table": table.number,
            "suite": table.suite,
            "model": table.model.name,
            "extractor": table.extractor,
            "comparable": "yes" if table.comparable else "no",
        }
        for line in (*_values(table), *_paired(table)):
            writer.writerow(common | line)
    return buffer.getvalue()


def _values(table: Table) -> Iterator[dict[str, object]]:
    for row in table.rows:
        for key in (*table.metrics, *table.diagnostics, *table.extras):
            printed, measured = row.quoted.get(key), row.measured.get(key)
            if printed is None and measured is None:
                continue
            line: dict[str, object] = {
                "section": "values",
                "method": row.method,
                "order": "" if row.order is None else row.order,
                "bits": str(row.bits),
                "metric": key,
                "unit": quantity(key).unit,
            }
            if printed is not None:
                line["quoted"] = "" if printed.value is None else printed.value
                line |= {"quoted_note": printed.note, "quoted_from": row.source}
            if measured is not None:
                line |= _estimate(measured) | footprint_cells(row.footprint) | _peculiar(row)
                line["best"] = "yes" if key in row.best else ""
            if table.comparable:
                gap = difference(row, key)
                line["measured_minus_quoted"] = "" if gap is None else gap
            yield line


def _paired(table: Table) -> Iterator[dict[str, object]]:
    for entry in table.comparisons:
        yield {
            "section": "paired",
            "method": entry.left,
            "against": entry.right,
            "bits": str(entry.bits),
            "metric": entry.key,
            "unit": quantity(entry.key).unit,
            "verdict": entry.verdict,
            **_estimate(entry.difference),
        }


def footprint_cells(found: Footprint | None, prefix: str = "") -> dict[str, object]:
    """Shares, bytes and bit operations under their columns; nothing for full precision."""
    return {f"{prefix}{key}": value for key, value in asdict(found).items()} if found else {}


def _peculiar(row: Row) -> dict[str, object]:
    found = row.granularity
    grids = {"grids": str(found), "remarks": "; ".join(found.remarks)} if found else {}
    return {"layers": row.layers, **grids}


def _estimate(value: Estimate) -> dict[str, object]:
    ends = {"half_width": value.half_width, "low": value.low, "high": value.high}
    found = {key: "" if end is None else end for key, end in ends.items()}
    return {"n": value.n, "measured": value.mean, **found, "source": value.source or ""}
