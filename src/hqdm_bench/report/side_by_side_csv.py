"""Report `methods` as long csv: one quantity of one method a line, full precision."""

import csv
import io
from collections.abc import Iterable, Iterator

from hqdm_bench.report.method_cost import MethodCost
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.side_by_side import Entry, ModelGroup
from hqdm_bench.report.table_csv import FOOTPRINT_COLUMNS, footprint_cells

__all__ = ["COLUMNS", "side_by_side_csv"]

COLUMNS = (
    "suite",
    "model",
    "extractor",
    "bits",
    "method",
    "metric",
    "unit",
    "rank_first",  # one more than the methods that are ahead of it
    "rank_last",  # the number of methods less those that it is ahead of
    "n",
    "seeds",
    "mean",
    "low",  # end of the 95 % interval
    "high",
    "source",  # what the interval is over: seeds, or images of one seed
    *FOOTPRINT_COLUMNS,
    "grids",  # of weights; of inputs
    "remark",  # what sets layers and grids apart
    "seconds",
    "seconds_by_stage",
    "cpu_seconds",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "samples",
    "extra_parameters",
)


def side_by_side_csv(suite: str, extractor: str, groups: Iterable[ModelGroup]) -> str:
    """Every quantity of every method; percent and dB as in the printed tables."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for group in groups:
        common = {"suite": suite, "extractor": extractor, "model": group.model.name}
        for entry in group.entries:
            for line in _lines(entry):
                writer.writerow(common | line)
    return buffer.getvalue()


def _lines(entry: Entry) -> Iterator[dict[str, object]]:
    common: dict[str, object] = {
        "bits": str(entry.bits),
        "method": entry.method,
        "n": len(entry.seeds),
        "seeds": " ".join(map(str, entry.seeds)),
        **footprint_cells(entry.footprint),
        "grids": str(entry.granularity or ""),
        "remark": entry.remark,
        **_cost(entry.cost),
    }
    for key, value in entry.values.items():
        rank = entry.ranks.get(key)
        yield common | {
            "metric": key,
            "unit": quantity(key).unit,
            "rank_first": rank.first if rank else "",
            "rank_last": rank.last if rank else "",
            "mean": value.mean,
            "low": "" if value.low is None else value.low,
            "high": "" if value.high is None else value.high,
            "source": value.source or "",
        }


def _cost(found: MethodCost | None) -> dict[str, object]:
    if found is None:
        return {}
    known = {
        "seconds": found.total_seconds,
        "cpu_seconds": found.cpu_seconds,
        "peak_memory_mb": found.peak_memory_mb,
        "peak_gpu_memory_mb": found.peak_gpu_memory_mb,
        "samples": found.samples,
        "extra_parameters": found.extra_parameters,
    }
    stages = "; ".join(f"{name}: {seconds!r}" for name, seconds in found.seconds.items())
    filled = {key: value for key, value in known.items() if value is not None}
    return {**filled, "seconds_by_stage": stages}
