"""The rule behind every verdict, and what a suite can test, in words."""

from hqdm_bench.report.claims.grade_training import FEWEST_EPOCHS
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.specs import ALL, Claim
from hqdm_bench.report.table_notes import thousands

__all__ = ["rule_text", "scope_text"]

OF_ALL = (
    "Reproduced if all these intervals lie above zero; not reproduced if one lies below zero at 95 "
    "% divided among the comparisons (Bonferroni); otherwise inconclusive."
)
OF_ONE = (
    "Reproduced if the 95 % interval lies above zero, not reproduced if it lies below, otherwise "
    "inconclusive."
)
# Ratios, for which no effect is one; which side is the sentence's stands in front.
RATIOS = (
    "Reproduced if all these intervals lie on that side of one; not reproduced if one lies on the "
    "other side at 95 % divided among the comparisons (Bonferroni); otherwise inconclusive."
)
RATIO = (
    "Reproduced if the 95 % interval lies on that side of one, not reproduced if it lies on the "
    "other, otherwise inconclusive."
)
EPOCHS = f"Inconclusive below {FEWEST_EPOCHS} epochs. "
COUNTED = (
    "Reproduced if it holds for all {noun}, not reproduced if for no more than half of them, "
    "otherwise inconclusive."
)

RULES = {
    "gains_exceed": "The relative gain in every metric, beyond {stated} %. " + OF_ALL,
    "better_everywhere": "The improvement of {methods} over {against}, metric by metric. " + OF_ALL,
    "below_full_precision": "How much worse {methods} is than full precision. " + OF_ALL,
    "trend_with_bits": "The gain over {against} at the lower activation bits minus that at the "
    "higher ones before, at equal weight bits, in the metric's unit or in percent of {against}, "
    "whichever is kinder to the sentence. " + OF_ALL,
    "improves_along": "The improvement from each weight width to the next. " + OF_ALL,
    "optimum": "The improvement of k = {order} over every other order, metric by metric. " + OF_ALL,
    "convergence:level": "Mean distillation loss at step 0 over all epochs (the area under figure "
    "4's curve), {methods} over {against}, seed by seed; below one is faster. " + EPOCHS + RATIOS,
    "convergence:roughness": "Standard deviation of the epoch-to-epoch changes of the logarithm of "
    "the loss at step 0, {methods} over {against}, seed by seed; below one is steadier. "
    + EPOCHS
    + RATIOS,
    "convergence_trend:level": "The factor of the mean losses at step 0, {methods} over {against}, "
    "at the lower activation bits over that at the higher ones; below one is a growing lead. "
    + EPOCHS
    + RATIO,
    "convergence_trend:roughness": "The factor of the loss's epoch-to-epoch jumps, {methods} over "
    "{against}, at the lower activation bits over that at the higher ones; below one is a growing "
    "lead. " + EPOCHS + RATIO,
    "error_growth": "Mean squared latent error against full precision from the same noise, after "
    "the last sampled step over after the first; above one is accumulation. " + RATIOS,
    "outliers_reduced:maximum": "The largest channel maximum of the layer's input, after the "
    "rotation over before it, below one. " + COUNTED.format(noun="panels (layer and step)"),
    "outliers_reduced:peak": "Largest over median channel maximum of the layer's input, after the "
    "rotation over before it, below one. " + COUNTED.format(noun="panels (layer and step)"),
    "outliers_beside_weights": "Largest over median channel maximum of the layer's input, over the "
    "same of its weight's input channels, above one. "
    + COUNTED.format(noun="panels (layer and step)"),
    "drift_over_steps": "A layer's largest channel maximum at its widest step over that at its "
    "narrowest, at least two: one bit of the grid. " + COUNTED.format(noun="layers"),
    "weight_outliers": "Share of output channels whose largest weight grows when the weight is "
    "rotated along its input channels, its 95 % Clopper-Pearson interval above one half. "
    + COUNTED.format(noun="layers"),
    "full_coverage": "No multiply-accumulate of the student's network is left in full precision "
    "under the released code's choice of layers. " + COUNTED.format(noun="models"),
    "memory": "Packed bytes of the student (codes, grids, tables) over those of float32, below "
    "one. " + COUNTED.format(noun="models"),
    "integer_execution": "The student drew its images with products of bytes in 32-bit sums in "
    "every quantized layer, whose codes are those of the fake-quantized layer. "
    + COUNTED.format(noun="rows of the tables, all training seeds"),
    "not_measured": "Not decided; it needs {needs}.",
}
DIRECTION = "The sign of the improvement of {methods} over {against}. " + OF_ONE
NUMBER = (
    "The {measure} of {methods} over {against}. Reproduced if its 95 % interval lies above zero "
    "and holds {stated}; not reproduced if it excludes {stated} (an interval over images of one "
    "training seed: if it lies beyond half or twice of it); otherwise inconclusive."
)
MEASURES = {"relative_gain": "relative gain in percent", "difference": "difference"}


def rule_text(claim: Claim, material: Material, numbers: bool) -> str:
    """What decides a sentence.

    Args:
        claim: the sentence.
        material: for the methods' titles.
        numbers: whether the stated number itself is graded.
    """
    if claim.kind in MEASURES:
        text = NUMBER if numbers else DIRECTION
    elif claim.kind == "gains_exceed" and not numbers:
        text = RULES["better_everywhere"]
    else:
        text = RULES.get(claim.kind) or RULES[f"{claim.kind}:{claim.statistic}"]
    every = ALL in claim.against
    against = "each other method" if every else _titles(claim.against, material)
    return text.format(
        methods=_titles(claim.methods, material),
        against=against,
        stated=claim.stated.text if claim.stated else "",
        order=claim.order,
        needs=claim.needs,
        measure=MEASURES.get(claim.kind, ""),
    )


def _titles(methods: tuple[str, ...], material: Material) -> str:
    return " and ".join(material.title(method) for method in methods)


def scope_text(claim: Claim, material: Material) -> str:
    """What the suite can say about a sentence at all."""
    if claim.kind == "not_measured":
        return "No suite decides this sentence yet."
    if claim.figures:
        models = _drawn(claim, material)
        tables = False
    else:
        models = list(
            dict.fromkeys(
                spec.name for cells in claim.cells for spec in material.models(cells.table)
            )
        )
        tables = bool(claim.spots)
    if not models:
        return "Nothing: the suite has no model of that data set and no such figure."
    names = ", ".join(models)
    if all(material.catalogue.model(name).source == "checkpoint" for name in models):
        if not tables or all(map(material.papers_own, models)):
            return f"The paper's own experiment ({names}), numbers included."
        return f"The paper's models ({names}) under another protocol: the direction only."
    if not tables:
        return f"Whether it holds on small embedded models ({names}), not on the paper's."
    return (
        f"The direction only, on small embedded models ({names}) with their own data, features and "
        f"{_images(material, models)} images a cell; no number of the paper's scale is graded."
    )


def _drawn(claim: Claim, material: Material) -> list[str]:
    entries = [
        entry
        for name, entry in material.suite.figures.items()
        if name[: len("fig00")] in claim.figures and "model" in entry
    ]
    return list(dict.fromkeys(entry["model"] for entry in entries))


def _images(material: Material, models: list[str]) -> str:
    counts = {
        result.metrics["protocol"]["images"]
        for name in models
        for result in material.results.select(name)
        if result.metrics is not None
    }
    return " or ".join(thousands(count) for count in sorted(counts)) or "no"
