"""Checks that no schema can make: what one entry says against what another one holds."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue.specs import ModelSpec, Protocol, Recipe
from hqdm_bench.catalogue.suites import Suite, SuiteModel
from hqdm_bench.common.errors import BenchError

__all__ = ["TABLE_DATASETS", "check_sampler", "check_suite", "check_variants"]

TABLE_DATASETS = {1: "imagenet", 2: "bedrooms", 3: "churches", 4: "imagenet"}
# Figures of one bit-width, of several models side by side, and of what only images have.
ONE_WIDTH_FIGURES = ("differences", "outlier_strength")
MODELS_FIGURES = ("outlier_strength", "quality_bits", "quality_cost")
IMAGE_FIGURES = ("sample_grid", "error_growth")
# What the weights of an embedded model depend on.
OF_WEIGHTS = (
    "source",
    "unet",
    "first_stage",
    "condition",
    "scale_factor",
    "beta_start",
    "beta_end",
    "ema",
    "data",
    "teacher",
)


def check_variants(models: Mapping[str, ModelSpec], path: Path) -> None:
    """Hold models that use another one's weights to that model.

    Raises:
        BenchError: the other model does not exist, is not embedded, is a variant itself, or differs
            in something its weights depend on.
    """
    for spec in models.values():
        if spec.weights_of is None:
            continue
        where = f"{path}: {spec.name}.weights_of is '{spec.weights_of}'"
        base = models.get(spec.weights_of)
        if base is None or base.source != "embedded" or base.weights_of is not None:
            known = (m.name for m in models.values() if m.source == "embedded" and not m.weights_of)
            raise BenchError(f"{where}; models with shipped weights: {', '.join(known)}")
        for name in OF_WEIGHTS:
            if getattr(spec, name) != getattr(base, name):
                raise BenchError(
                    f"{where}, but its '{name}' is another one, so those weights are not its own; "
                    f"take the entry of '{base.name}' over with <<"
                )


def check_suite(
    suite: Suite, models: Mapping[str, ModelSpec], protocols: Mapping[str, Protocol], path: Path
) -> None:
    """Hold the parts of a suite to each other.

    Raises:
        BenchError: a table, figure or comparison shows what the suite or its protocols do not make.
    """
    for entry in suite.models:
        if not entry.images:
            _check_without_images(suite, entry, models[entry.model], path)
    for name, figure in suite.figures.items():
        where = f"{path}: figures.{name}"
        _check_figure(suite, figure, where)
        if figure["kind"] == "error_growth":
            _check_traced(protocols[suite.model(figure["model"]).protocol], where)
    _check_comparisons(suite, path)


def check_sampler(recipe: Recipe, protocol: Protocol, where: str) -> None:
    """Hold the sampler that post-training methods are calibrated for to the one that draws images.

    Raises:
        BenchError: they differ.
    """
    if recipe.post_training is None:
        return
    for name in ("steps", "eta", "guidance"):
        wanted, given = getattr(protocol, name), getattr(recipe.post_training, name)
        if wanted != given:
            raise BenchError(
                f"{where}: protocol '{protocol.name}' samples with {name} {wanted:g}, but "
                f"post_training of recipe '{recipe.name}' is calibrated for {given:g}; make them "
                "equal in config/recipes.yaml"
            )


def _check_without_images(suite: Suite, entry: SuiteModel, spec: ModelSpec, path: Path) -> None:
    where = f"{path}: {entry.model} has 'images: false'"
    if len(entry.students) != len(entry.cells):
        raise BenchError(
            f"{where} and cells of method fp, of which there is nothing but images; take them out"
        )
    if entry.baselines:
        raise BenchError(f"{where} and 'baselines', which are image sets; take one of them out")
    for number in suite.tables:
        if TABLE_DATASETS[number] == spec.paper_dataset:
            raise BenchError(
                f"{where}, table {number} of 'tables' shows metrics of its images; take one of "
                "them out"
            )


def _check_figure(suite: Suite, figure: Mapping[str, Any], where: str) -> None:
    shown = list(_shown(figure, where))
    held = {entry.model: entry for entry in suite.models}
    for model in shown:
        if model not in held:
            raise BenchError(f"{where} shows '{model}', not in the suite")
    kind, one_width = figure["kind"], figure["kind"] in ONE_WIDTH_FIGURES
    if "bits" in figure and isinstance(figure["bits"], str) != one_width:
        form = "one bit-width" if one_width else "a list of bit-widths"
        raise BenchError(f"{where}.bits is {figure['bits']!r}; kind {kind} takes {form}")
    of_images = kind in IMAGE_FIGURES or set(figure.get("metrics", [])) - {"noise_error"}
    blind = [model for model in shown if not held[model].images]
    if of_images and blind:
        raise BenchError(f"{where} needs images of '{blind[0]}', which has 'images: false'")


def _check_traced(protocol: Protocol, where: str) -> None:
    if not protocol.trace_images:
        raise BenchError(
            f"{where} shows errors over timesteps, which protocol '{protocol.name}' does not "
            "record; set 'trace_images' in config/protocols.yaml or take the figure out"
        )


def _shown(figure: Mapping[str, Any], where: str) -> Iterator[str]:
    """Models a figure shows: those of ``models`` if it sets several side by side."""
    key = "models" if figure["kind"] in MODELS_FIGURES else "model"
    if key not in figure:
        raise BenchError(f"{where}: missing key {key}")
    if key == "models":
        yield from figure["models"]
    else:
        yield figure["model"]


def _check_comparisons(suite: Suite, path: Path) -> None:
    if suite.studies and not suite.comparisons:
        raise BenchError(
            f"{path}: reports has {', '.join(suite.studies)}; say under 'compare' which methods "
            "are set against which baseline"
        )
    held = dict.fromkeys(cell.method for cell in suite.cells)
    seen: set[tuple[str, str]] = set()
    for one in suite.comparisons:
        _require_methods((one.baseline, *one.methods), held, path)
        for method in one.methods:
            if method == one.baseline:
                raise BenchError(f"{path}: compare sets '{method}' against itself")
            if (one.baseline, method) in seen:
                raise BenchError(f"{path}: compare sets '{method}' against '{one.baseline}' twice")
            seen.add((one.baseline, method))


def _require_methods(methods: Iterable[str], held: Iterable[str], path: Path) -> None:
    known = list(held)
    for method in methods:
        if method not in known:
            raise BenchError(
                f"{path}: compare names '{method}', of which the suite has no cell; it has "
                f"{', '.join(known)}"
            )
