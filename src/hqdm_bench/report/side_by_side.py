"""What report `methods` sets side by side: every method of a model at a bit-width."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.catalogue import Bits, Catalogue, Layout, ModelSpec, Suite, SuiteModel
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.estimates import Estimate, Sample, estimate, itself
from hqdm_bench.report.footprint import Footprint, footprint
from hqdm_bench.report.granularity import Granularity, granularity
from hqdm_bench.report.method_cost import MethodCost, method_cost
from hqdm_bench.report.ranks import Rank, ranks
from hqdm_bench.report.results import CellResult, common_protocol, read_cell
from hqdm_bench.report.table_rows import peculiarities, row_of, row_sample
from hqdm_bench.report.table_specs import order_variants

__all__ = ["IMAGE_KEYS", "RANKED", "Entry", "ModelGroup", "read_side_by_side"]

RANKED = ("noise_error", "fid", "psnr_median")
IMAGE_KEYS = RANKED[1:]  # without images there is the noise error alone


@dataclass(frozen=True)
class Entry:
    """One method at one bit-width, or the full-precision model.

    Attributes:
        values: by quantity, in the shown unit.
        ranks: by quantity; empty for full precision.
        remark: what sets its layers and grids apart, or empty.
        footprint: None for full precision, as the two below.
        cost: None also where the run recorded none.
    """

    method: str
    title: str
    bits: Bits
    seeds: tuple[int, ...]
    values: dict[str, Estimate]
    ranks: dict[str, Rank]
    remark: str
    footprint: Footprint | None
    granularity: Granularity | None
    cost: MethodCost | None


@dataclass(frozen=True)
class ModelGroup:
    """The methods of one model.

    Attributes:
        keys: quantities it has.
        blocks: full precision, if it was drawn, then one block a bit-width, most bits of the inputs
            first; in a block, best noise error first.
        results: behind them.
    """

    model: ModelSpec
    keys: tuple[str, ...]
    blocks: tuple[tuple[Entry, ...], ...]
    results: tuple[CellResult, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every row."""
        return tuple(entry for block in self.blocks for entry in block)


def read_side_by_side(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[ModelGroup, ...]:
    """Read every model of a suite; orders that only Table 4 has are left out.

    Raises:
        BenchError: the suite has no student, a result is missing, damaged or another cell's, or
            results of a model were scored under different protocols.
    """
    groups = [_read(root, entry, catalogue) for entry in suite.models if entry.students]
    if not groups:
        raise BenchError(
            f"suite '{suite.name}' trains no student, so there are no methods to set side by side; "
            f"take 'methods' out of 'reports' in config/suites/{suite.name}.yaml"
        )
    return tuple(groups)


def _read(root: Path, entry: SuiteModel, catalogue: Catalogue) -> ModelGroup:
    layout, variants = Layout(root), order_variants()
    results = tuple(
        read_cell(layout, cell, entry.images, with_history=False)
        for cell in entry.cells
        if cell.method not in variants
    )
    if entry.images:
        common_protocol(results)
    keys = RANKED if entry.images else tuple(key for key in RANKED if key not in IMAGE_KEYS)
    widths = {result.cell.bits for result in results}
    ordered = sorted(widths, key=lambda bits: (-bits.activation, -bits.weight))
    blocks = tuple(_block(results, bits, keys, catalogue) for bits in ordered)
    return ModelGroup(catalogue.model(entry.model), keys, blocks, results)


def _block(
    results: Sequence[CellResult], bits: Bits, keys: Sequence[str], catalogue: Catalogue
) -> tuple[Entry, ...]:
    methods = dict.fromkeys(r.cell.method for r in results if r.cell.bits == bits)
    samples = {
        key: {method: row_sample(results, method, bits, key) for method in methods} for key in keys
    }
    places = {} if bits.full_precision else {key: ranks(samples[key], key) for key in keys}
    remarks = peculiarities(results)
    found = []
    for method in methods:
        own = [result for result in results if row_of(result) == (method, bits)]
        found.append(
            Entry(
                method,
                catalogue.method(method).title,
                bits,
                tuple(result.cell.seed for result in own),
                _estimates({key: samples[key][method] for key in keys}),
                {key: place[method] for key, place in places.items() if method in place},
                remarks.get((method, bits), ""),
                footprint(own),
                granularity(own),
                method_cost(own),
            )
        )
    return tuple(sorted(found, key=_noise))


def _estimates(samples: dict[str, Sample]) -> dict[str, Estimate]:
    found = {key: estimate(itself, values) for key, values in samples.items()}
    return {key: value for key, value in found.items() if value is not None}


def _noise(entry: Entry) -> float:
    value = entry.values.get("noise_error")
    return value.mean if value else 0.0
