"""What the paper's own tables say about its sentences.

Each sentence that states something of the tables is computed anew from them. A number follows if it
is the computed one at the digits printed. A sentence about many cells follows if all of them agree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hqdm_bench.report.claims.printed import PaperTables, improvement
from hqdm_bench.report.claims.specs import ALL, Claim, Spot, Stated
from hqdm_bench.report.paper import PAPER_TITLES
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.table_text import number, signed

__all__ = ["CONTRADICTS", "FOLLOWS", "NOT_CHECKABLE", "Finding", "check", "spot_text"]

FOLLOWS = "follows"
CONTRADICTS = "does not follow"
NOT_CHECKABLE = "not checkable"


@dataclass(frozen=True)
class Finding:
    """What the tables say of one sentence.

    Attributes:
        verdict: follows, does not follow or not checkable.
        text: the computation in words.
        recomputed: the number where the sentence states one.
        exceptions: the cells that disagree.
        count: cells looked at.
    """

    verdict: str
    text: str
    recomputed: float | None = None
    exceptions: tuple[str, ...] = ()
    count: int = 0


def check(claim: Claim, claims: Sequence[Claim], tables: PaperTables) -> Finding:
    """Compute a sentence anew from the paper's tables.

    Args:
        claim: the sentence.
        claims: all of them, to find the same number printed twice.
        tables: the paper's.
    """
    if claim.kind in ("relative_gain", "difference"):
        return _number(claim, claims, tables)
    rule = RULES.get(claim.kind)
    if rule is None:
        return Finding(NOT_CHECKABLE, "The tables hold nothing about it.")
    return _conjunction(rule(claim, tables), len(claim.spots))


def spot_text(spot: Spot) -> str:
    """As in ``Table 2, W3A4, FID``."""
    return f"Table {spot.table}, {spot.bits.label}, {quantity(spot.metric).symbol}"


def _number(claim: Claim, claims: Sequence[Claim], tables: PaperTables) -> Finding:
    assert claim.stated is not None  # the schema asks for it
    (spot,), relative = claim.spots, claim.kind == "relative_gain"
    (method,), (against,) = claim.methods, claim.against
    found = _gain(tables, spot, method, against, relative)
    if found is None:
        return Finding(NOT_CHECKABLE, f"The paper prints no number for {spot_text(spot)}.")
    left, right = tables.value(spot, method), tables.value(spot, against)
    gain = f"{signed(found, 2)} %" if relative else number(found, 2)
    text = f"{left:.2f} against {right:.2f}: {gain}"
    follows = claim.stated.agrees(found)
    remarks = [] if follows else _elsewhere(claim.stated, spot, tables, claim, relative)
    remarks += _repeated(claim, claims)
    text = "; ".join((f"{spot_text(spot)}: {text}", *remarks)) + "."
    return Finding(FOLLOWS if follows else CONTRADICTS, text, found, count=1)


def _gain(
    tables: PaperTables, spot: Spot, method: str, against: str, relative: bool
) -> float | None:
    left, right = tables.value(spot, method), tables.value(spot, against)
    if left is None or right is None:
        return None
    return float(improvement(spot.metric, relative)(left, right))


def _elsewhere(
    stated: Stated, spot: Spot, tables: PaperTables, claim: Claim, relative: bool
) -> list[str]:
    """Other places of the tables of which the stated number would be true, in the same measure."""
    (method,), (against,) = claim.methods, claim.against
    spots = {Spot(key[0], key[3], key[4]): None for key in tables.values if key[0] != 4}
    hits = []
    for other in spots:
        found = None if other == spot else _gain(tables, other, method, against, relative)
        if found is not None and stated.agrees(found):
            hits.append(f"{stated.text} is what {spot_text(other)} gives")
    return hits or [f"no other cell gives {stated.text}"]


def _repeated(claim: Claim, claims: Sequence[Claim]) -> list[str]:
    """The same cells' number at other digits elsewhere in the paper."""
    remarks = []
    for other in claims:
        same = (other.kind, other.cells, other.methods, other.against) == (
            claim.kind,
            claim.cells,
            claim.methods,
            claim.against,
        )
        if same and claim.stated and other.stated and claim.stated.text != other.stated.text:
            word = "the same number" if claim.stated.covers(other.stated) else "another number"
            remarks.append(f"{other.place} prints {other.stated.text}, {word}")
    return remarks


@dataclass(frozen=True)
class _Case:
    """One comparison of a sentence about many.

    Attributes:
        holds: None if the tables do not print it.
        text: the numbers.
        dashes: whether one side is a row of dashes, read as a method that breaks down.
    """

    holds: bool | None
    text: str = ""
    dashes: bool = False


def _conjunction(cases: Iterator[_Case], spots: int) -> Finding:
    known = [case for case in cases if case.holds is not None]
    if not known:
        what = "these cells" if spots else "it"
        return Finding(NOT_CHECKABLE, f"The paper's tables print nothing for {what}.")
    exceptions = tuple(case.text for case in known if not case.holds)
    kept = len(known) - len(exceptions)
    dashes = sum(case.dashes for case in known)
    remark = f", {dashes} of them with a row of dashes" if dashes else ""
    text = f"True of {kept} of {len(known)} comparisons{remark}."
    verdict = CONTRADICTS if exceptions else FOLLOWS
    return Finding(verdict, text, exceptions=exceptions, count=len(known))


def _better(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    for spot in claim.spots:
        for method in claim.methods:
            rivals = claim.against
            if ALL in rivals:
                rivals = tables.others(spot, method)
            for rival in rivals:
                yield _ahead(tables, spot, method, rival)


def _ahead(tables: PaperTables, spot: Spot, method: str, rival: str) -> _Case:
    left, right = tables.value(spot, method), tables.at(spot, rival)
    if left is not None and right is not None and right.failed:
        return _Case(True, dashes=True)
    if left is None or right is None or right.value is None:
        return _Case(None)
    text = f"{spot_text(spot)} ({left:.2f} against {PAPER_TITLES[rival]}'s {right.value:.2f})"
    return _Case(improvement(spot.metric, relative=False)(left, right.value) > 0, text)


def _below(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    for spot in claim.spots:
        for method in claim.methods:
            found, full = tables.at(spot, method), tables.value(spot, "fp")
            if found is None or full is None or (found.value is None and not found.failed):
                continue
            if found.value is None:
                yield _Case(True, dashes=True)
                continue
            title = PAPER_TITLES[method]
            text = f"{spot_text(spot)} ({title}'s {found.value:.2f}, full precision {full:.2f})"
            yield _Case(improvement(spot.metric, relative=False)(full, found.value) > 0, text)


def _exceeds(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    assert claim.stated is not None
    (method,), (against,) = claim.methods, claim.against
    for spot in claim.spots:
        found = _gain(tables, spot, method, against, relative=True)
        if found is None:
            yield _Case(None)
            continue
        text = f"rises by {found:.2f} %"
        if not quantity(spot.metric).higher_is_better:
            left, right = tables.value(spot, method), tables.value(spot, against)
            text = f"falls by {found:.2f} %, no fall exceeds 100 %; {left:.2f} from {right:.2f}"
        yield _Case(found > claim.stated.value, f"{spot_text(spot)} ({text})")


def _trend(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    """The gain of a step grows if its difference or its share of the rival's value grows."""
    (method,), (against,) = claim.methods, claim.against
    for cells in claim.cells:
        for earlier, later in cells.steps():
            gains = [
                _gain(tables, spot, method, against, relative)
                for relative in (False, True)
                for spot in (earlier, later)
            ]
            if any(gain is None for gain in gains):
                yield _Case(None)
                continue
            first, second, first_share, second_share = (gain or 0.0 for gain in gains)
            text = (
                f"{spot_text(later)} (gain {signed(second, 2)} or {signed(second_share, 1)} %, at "
                f"{earlier.bits.label} {signed(first, 2)} or {signed(first_share, 1)} %)"
            )
            yield _Case(second > first or second_share > first_share, text)


def _along(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    (method,) = claim.methods
    for cells in claim.cells:
        for earlier, later in cells.steps():
            first, second = tables.value(earlier, method), tables.value(later, method)
            if first is None or second is None:
                yield _Case(None)
                continue
            text = f"{spot_text(later)} ({second:.2f} after {first:.2f} at {earlier.bits.label})"
            yield _Case(improvement(later.metric, relative=False)(second, first) > 0, text)


def _optimum(claim: Claim, tables: PaperTables) -> Iterator[_Case]:
    """One comparison a metric: with the best of the other orders."""
    (method,) = claim.methods
    for spot in claim.spots:
        values = {k: tables.value(spot, method, k) for k in tables.orders(spot)}
        known = {k: value for k, value in values.items() if value is not None}
        if claim.order not in known or len(known) < 2:
            yield _Case(None)
            continue
        sign = 1 if quantity(spot.metric).higher_is_better else -1
        best = max(known, key=lambda k: sign * known[k])
        text = f"{spot_text(spot)} (best at k = {best}: {known[best]:.2f} against "
        yield _Case(best == claim.order, f"{text}{known[claim.order]:.2f})")


RULES: dict[str, Callable[[Claim, PaperTables], Iterator[_Case]]] = {
    "better_everywhere": _better,
    "below_full_precision": _below,
    "gains_exceed": _exceeds,
    "trend_with_bits": _trend,
    "improves_along": _along,
    "optimum": _optimum,
}
