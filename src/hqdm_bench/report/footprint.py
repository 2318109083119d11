"""What a student costs, and which layers it leaves out of its low bits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.results import CellResult

__all__ = [
    "OFFICIAL",
    "Footprint",
    "assign_marks",
    "footprint",
    "layers_text",
    "policy_of",
    "same_layers",
    "shares_text",
]

OFFICIAL = "official"
STATIC = Bits(8, 8)  # the fixed width of the policy's special layers
FLOAT_BITS = 32
SYMBOLS = "†‡§¶"


@dataclass(frozen=True)
class Footprint:
    """Cost of one student's network, products inside attention not counted.

    Attributes:
        mac_share: multiply-accumulates at the bits the student is named by, in [0, 1].
        weight_share: weights at those bits, in [0, 1].
        packed_bytes: weights in codes without gaps, float32 elsewhere, and the quantized layers'
            step sizes, zero-points and tables.
        bops: bit operations of one pass for one image, macs * weight bits * activation bits.
    """

    mac_share: float
    weight_share: float
    packed_bytes: int
    bops: int


def footprint(results: Sequence[CellResult]) -> Footprint | None:
    """Cost of the students of one method, model and bit-width; None for full precision.

    Raises:
        BenchError: the seeds differ in what they quantize, or a result lacks a number.
    """
    found = {_footprint(result) for result in results if result.training is not None}
    if len(found) > 1:
        raise BenchError(
            f"seeds of {results[0].cell} differ in what they quantize; delete the older "
            "training.json and run again"
        )
    return found.pop() if found else None


def _footprint(result: CellResult) -> Footprint:
    coverage, own = _coverage(result), str(result.cell.bits)
    share = coverage["by_bits"].get(own, {"mac_share": 0.0, "weight_share": 0.0})
    try:
        packed = coverage["weight_bytes"] + coverage["grid_bytes"]
        packed += coverage.get("table_bytes", 0)  # older records have none
        return Footprint(share["mac_share"], share["weight_share"], packed, coverage["bops"])
    except KeyError as error:
        raise BenchError(
            f"coverage of {result.cell} has no {error}; delete its training.json and run again"
        ) from None


def shares_text(own: Bits, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Share of multiply-accumulates at each width, the student's own called so."""
    parts = []
    for bits in sorted(groups, key=_widths):
        weight, activation = _widths(bits)
        where = f"at {bits.upper()}"
        if activation == FLOAT_BITS:
            exact = "in full precision" if weight == FLOAT_BITS else f"at W{weight}, inputs exact"
            where = exact
        where = "at these bits" if bits == str(own) else where
        parts.append(f"{100 * groups[bits]['mac_share']:.1f} % {where}")
    return ", ".join(parts)


def _widths(bits: str) -> tuple[int, int]:
    """Of weights and inputs; a layer may have what no student can, such as w4a32."""
    weight, activation = bits.removeprefix("w").split("a")
    return int(weight), int(activation)


def layers_text(result: CellResult) -> str:
    """Which layers are low-bit, in words: all of them, or the shares of arithmetic."""
    groups, policy = _coverage(result)["by_bits"], policy_of(result)
    if list(groups) == [str(result.cell.bits)]:
        return "every layer low-bit"
    rule = f" (policy: {policy})" if policy not in (None, OFFICIAL) else ""
    return f"of the MACs {shares_text(result.cell.bits, groups)}{rule}"


def policy_of(result: CellResult) -> str | None:
    """Layer policy the student was trained with; None for an implementation without one."""
    assert result.training is not None
    policy: str | None = result.training["options"].get("policy")
    return policy


def same_layers(left: CellResult, right: CellResult) -> bool:
    """Whether two students of a model exempt the same layers from their low bits.

    Judged by policy and by the arithmetic at other widths. Layers fixed at 8 bits cannot be told
    from the low-bit ones of a W8A8 student, so beside one they are not looked at.
    """
    ignored = {STATIC} if STATIC in (left.cell.bits, right.cell.bits) else set()
    return policy_of(left) == policy_of(right) and (
        _exempt(left, ignored) == _exempt(right, ignored)
    )


def _exempt(result: CellResult, ignored: set[Bits]) -> dict[str, float]:
    hidden = {str(bits) for bits in (result.cell.bits, *ignored)}
    groups = _coverage(result)["by_bits"]
    return {bits: group["mac_share"] for bits, group in groups.items() if bits not in hidden}


def assign_marks(texts: Iterable[str]) -> dict[str, str]:
    """A footnote mark for each text, in order of first appearance: †, ‡, §, ¶, ††, ..."""
    distinct = dict.fromkeys(texts)
    return {
        text: SYMBOLS[place % len(SYMBOLS)] * (1 + place // len(SYMBOLS))
        for place, text in enumerate(distinct)
    }


def _coverage(result: CellResult) -> Mapping[str, Any]:
    assert result.training is not None
    coverage: Mapping[str, Any] = result.training["coverage"]
    return coverage
