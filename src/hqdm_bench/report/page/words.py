"""What a suite is, and what its results can and cannot show, in plain words."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.report.quantities import MINI_EXTRACTOR
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.table_notes import thousands

__all__ = ["Scope", "scope"]

TOY_IMAGES = 100  # fewer than this a cell measure nothing


@dataclass(frozen=True)
class Scope:
    """Words at the head of a page.

    Attributes:
        lead: what the suite is.
        numbers: (value, what it counts).
        can: what its results can show.
        cannot: what they cannot.
    """

    lead: str
    numbers: tuple[tuple[str, str], ...]
    can: tuple[str, ...]
    cannot: tuple[str, ...]


def scope(suite: Suite, catalogue: Catalogue, results: ResultSet) -> Scope:
    """Words for a suite, from what it selects and what its results record."""
    models = [catalogue.model(entry.model) for entry in suite.models]
    embedded = any(spec.source == "embedded" for spec in models)
    images = {r.metrics["protocol"]["images"] for r in results.results if r.metrics is not None}
    toy = bool(images) and max(images) < TOY_IMAGES
    numbers = _numbers(suite, results, images)
    if embedded:
        return Scope(_embedded_lead(len(models)), numbers, *_embedded(suite, images, toy))
    return Scope(
        f"The paper's experiment at its own scale: {_count(len(models), 'CompVis model')}, "
        "Inception features, published reference sets.",
        numbers,
        (
            "our value beside the paper's, and their difference",
            "which method comes closer to full precision on the same noise and labels",
        ),
        (
            "the variation of training, where a student was trained with one seed",
            "the settings the paper does not state, such as steps and eta of its LSUN rows",
        ),
    )


def _embedded_lead(models: int) -> str:
    return (
        f"The paper's study on {_count(models, 'small embedded model')}: the networks have the "
        "structures of the paper's latent diffusion models, the images are drawn by the package."
    )


def _embedded(suite: Suite, images: set[int], toy: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if toy:
        most = thousands(max(images))
        return (
            ("that every step of the workflow runs and that its outputs fit together",),
            (
                f"anything about a method: {most} images a cell measure nothing, and no number or "
                "verdict on this page is a result",
            ),
        )
    seeds = {cell.seed for cell in suite.cells}
    can = ["which method comes closer to its own full-precision model at the same budget"]
    can[0] += ", on the same noise and labels" if images else ""
    if len(seeds) > 1:
        can.append("whether that depends on the training seed, where a cell has several")
    can.append(
        "the direction of a claim of the paper, with an interval; “reproduced” says nothing of its "
        "size"
    )
    cannot = [
        "a number of the paper: models, data, image counts and feature extractor are others, so "
        "the paper's values stand beside ours as another experiment",
    ]
    if suite.extractor == MINI_EXTRACTOR and images:
        cannot.append(
            "FID, sFID or IS in Inception features; a small classifier of the embedded images "
            "stands in, and its columns are headed -like"
        )
    cannot.append(
        "that a difference is absent: “inconclusive” says that the interval holds zero, or that "
        "there is none"
    )
    return tuple(can), tuple(cannot)


def _numbers(suite: Suite, results: ResultSet, images: set[int]) -> tuple[tuple[str, str], ...]:
    students = [result for result in results.results if result.training is not None]
    found = [(len(suite.models), "model"), (len(students), "student")]
    total = sum(r.metrics["protocol"]["images"] for r in results.results if r.metrics is not None)
    if images:
        found.append((total, "image"))
    per_cell: dict[tuple[str, str, str], set[int]] = {}
    for cell in (result.cell for result in students):
        per_cell.setdefault((cell.model, cell.method, str(cell.bits)), set()).add(cell.seed)
    rows = [(thousands(count), _plural(count, word)) for count, word in found]
    if per_cell:
        counts = sorted({len(seeds) for seeds in per_cell.values()})
        text = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        rows.append((text, _plural(counts[-1], "training seed") + " a cell"))
    updates = _updates(results)
    if updates:
        text = " to ".join(map(thousands, dict.fromkeys((min(updates), max(updates)))))
        rows.append((text, "updates a student"))
    return tuple(rows)


def _updates(results: ResultSet) -> set[int]:
    recipes = [
        result.training["recipe"]
        for result in results.results
        if result.training is not None
        and "recipe" in result.training
        and result.training.get("loss", True)  # None for a student that is not trained
    ]
    return {recipe["steps"] * recipe["trajectories"] for recipe in recipes}


def _count(number: int, word: str) -> str:
    names = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{names.get(number, number)} {_plural(number, word)}"


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"
