"""Sentences about the tables' metrics, graded on a suite's own cells."""

from collections.abc import Callable, Iterator, Sequence

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.printed import PaperTables, improvement
from hqdm_bench.report.claims.specs import ALL, Claim, Spot
from hqdm_bench.report.claims.verdicts import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    Comparison,
    Grade,
    grade_comparisons,
)
from hqdm_bench.report.estimates import Function, Sample
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.table_specs import ORDER_METHODS, RELEASED_ORDER

__all__ = ["TABLE_KINDS", "grade_tables", "numbers_count"]

FACTOR = 2.0  # how far off an effect may be before one seed's interval over images refutes a number


def grade_tables(claim: Claim, material: Material, tables: PaperTables) -> Grade:
    """Grade one sentence of `TABLE_KINDS`.

    Args:
        claim: the sentence.
        material: the suite's results.
        tables: the paper's, which say whom a sentence about all methods speaks of.
    """
    found = grade_comparisons(list(TABLE_KINDS[claim.kind](claim, material, tables)))
    if claim.kind in ("relative_gain", "difference") and numbers_count(claim, material):
        return _number(claim, found)
    return found


def numbers_count(claim: Claim, material: Material) -> bool:
    """Whether stated numbers are graded: every model is scored as the paper's own."""
    models = [spec for cells in claim.cells for spec in material.models(cells.table)]
    return bool(models) and all(material.papers_own(spec.name) for spec in models)


def _number(claim: Claim, grade: Grade) -> Grade:
    """Grade the stated number itself, on the paper's own experiment.

    An interval over seeds decides on the number. One over the images of a single seed does not hold
    what another training would change, so it refutes a number only when it lies beyond half or
    twice of it.
    """
    assert claim.stated is not None
    if grade.verdict == NOT_RUN or grade.interval is None:
        return grade
    low, high = grade.interval
    stated = claim.stated
    least, most = stated.value - stated.tolerance, stated.value + stated.tolerance
    if low <= most and high >= least:
        verdict = REPRODUCED if low > 0 else INCONCLUSIVE
        text = f"The interval holds {claim.stated.text}."
    else:
        over_seeds = "seeds" in grade.kind
        reach = 1.0 if over_seeds else FACTOR
        far = high < least / reach or low > most * reach
        verdict = NOT_REPRODUCED if far else INCONCLUSIVE
        text = f"The interval does not hold {claim.stated.text}"
        text += "." if far else ", but one training seed cannot refute it by less than a factor 2."
    return Grade(
        verdict,
        text,
        grade.effect,
        grade.unit,
        grade.interval,
        grade.kind,
        grade.parts,
        grade.evidence,
    )


def _places(claim: Claim, material: Material) -> Iterator[tuple[Spot, str]]:
    """Every place of the sentence on every model that stands for its data set, '' if none does."""
    for spot in claim.spots:
        models: Sequence[ModelSpec] = material.models(spot.table)
        yield from ((spot, spec.name) for spec in models)
        if not models:
            yield spot, ""


def _gains(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    relative = claim.kind == "relative_gain"
    (method,), (rival,) = claim.methods, claim.against
    for spot, model in _places(claim, material):
        yield _pair(material, spot, model, method, rival, relative)


def _better(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    for spot, model in _places(claim, material):
        for method in claim.methods:
            rivals = tables.others(spot, method) if ALL in claim.against else claim.against
            for rival in rivals:
                yield _pair(material, spot, model, method, rival)


def _exceeds(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    """Elsewhere than in the paper's own experiment, the direction of each gain."""
    assert claim.stated is not None
    (method,), (rival,) = claim.methods, claim.against
    numbers, least = numbers_count(claim, material), claim.stated.value
    for spot, model in _places(claim, material):
        pair = _pair(material, spot, model, method, rival, relative=numbers)
        if not numbers:
            yield pair
            continue
        yield Comparison(
            f"{pair.label}, beyond {claim.stated.text} %",
            (_beyond(spot.metric, least),),
            pair.samples,
            f"% beyond {claim.stated.text}",
            pair.evidence,
        )


def _beyond(metric: str, percent: float) -> Function:
    gain = improvement(metric, relative=True)
    return lambda left, right: gain(left, right) - percent


def _pair(
    material: Material, spot: Spot, model: str, left: str, right: str, relative: bool = False
) -> Comparison:
    """A method against another one at one place; positive is better."""
    samples = material.sample(model, left, spot), material.sample(model, right, spot)
    if relative and _holds_zero(samples[1]):
        samples = {}, {}
    evidence = [material.files(model, name, spot.bits, spot.metric) for name in (left, right)]
    return Comparison(
        f"{_where(material, spot, model)}: {material.title(left)} against {material.title(right)}",
        (improvement(spot.metric, relative),),
        samples,
        _unit(material, spot.metric, relative),
        (*evidence[0], *evidence[1]),
    )


def _below(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    for spot, model in _places(claim, material):
        for method in claim.methods:
            if tables.at(spot, method) is None:
                continue
            student = material.sample(model, method, spot)
            full = material.full_precision(model, spot, list(student))
            worse = improvement(spot.metric, relative=False)
            yield Comparison(
                f"{_where(material, spot, model)}: full precision against {material.title(method)}",
                (worse,),
                (full, student),
                _unit(material, spot.metric),
                material.files(model, method, spot.bits, spot.metric)
                + material.files(model, "fp", spot.bits, spot.metric),
            )


def _trend(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    (method,), (rival,) = claim.methods, claim.against
    for earlier, later, model in _steps(claim, material):
        pairs = [(spot, name) for spot in (later, earlier) for name in (method, rival)]
        samples = tuple(material.sample(model, name, spot) for spot, name in pairs)
        readings = [False] if any(map(_holds_zero, samples[1::2])) else [False, True]
        yield Comparison(
            f"{_where(material, later, model)}: gain of {material.title(method)} over "
            f"{material.title(rival)} beside that at {earlier.bits.label}",
            tuple(_change(later.metric, relative) for relative in readings),
            samples,
            f"more {_unit(material, later.metric)}",
            tuple(
                path
                for spot, name in pairs
                for path in material.files(model, name, spot.bits, spot.metric)
            ),
        )


def _change(metric: str, relative: bool) -> Function:
    gain = improvement(metric, relative)
    return lambda left, right, left_before, right_before: (
        gain(left, right) - gain(left_before, right_before)
    )


def _along(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    (method,) = claim.methods
    for earlier, later, model in _steps(claim, material):
        yield Comparison(
            f"{_where(material, later, model)}: {material.title(method)} beside itself at "
            f"{earlier.bits.label}",
            (improvement(later.metric, relative=False),),
            (material.sample(model, method, later), material.sample(model, method, earlier)),
            _unit(material, later.metric),
            material.files(model, method, later.bits, later.metric)
            + material.files(model, method, earlier.bits, earlier.metric),
        )


def _optimum(claim: Claim, material: Material, tables: PaperTables) -> Iterator[Comparison]:
    best = ORDER_METHODS[claim.order or RELEASED_ORDER]
    for spot, model in _places(claim, material):
        for rival in ORDER_METHODS.values():
            if rival != best:
                yield _pair(material, spot, model, best, rival)


def _steps(claim: Claim, material: Material) -> Iterator[tuple[Spot, Spot, str]]:
    for cells in claim.cells:
        names = [spec.name for spec in material.models(cells.table)] or [""]
        for earlier, later in cells.steps():
            yield from ((earlier, later, name) for name in names)


def _holds_zero(values: Sample) -> bool:
    """Whether nothing can be divided by a sample."""
    return any(
        one.value == 0 or (one.replicates is not None and not one.replicates.all())
        for one in values.values()
    )


def _where(material: Material, spot: Spot, model: str) -> str:
    place = model or f"no model for table {spot.table}"
    return f"{place}, {spot.bits.label}, {material.label(spot.metric)}"


def _unit(material: Material, metric: str, relative: bool = False) -> str:
    kind, name = quantity(metric), material.label(metric)
    unit = "points " if kind.unit == "%" else f"{kind.unit} " if kind.unit else ""
    return f"{'% ' if relative else unit}gain in {name}"


TABLE_KINDS: dict[str, Callable[[Claim, Material, PaperTables], Iterator[Comparison]]] = {
    "relative_gain": _gains,
    "difference": _gains,
    "gains_exceed": _exceeds,
    "better_everywhere": _better,
    "below_full_precision": _below,
    "trend_with_bits": _trend,
    "improves_along": _along,
    "optimum": _optimum,
}
