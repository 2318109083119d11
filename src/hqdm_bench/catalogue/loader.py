"""Reading the catalogues in ``config/`` into frozen entries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hqdm_bench.catalogue.bits import Bits
from hqdm_bench.catalogue.consistency import check_sampler, check_suite, check_variants
from hqdm_bench.catalogue.method_spec import MethodSpec
from hqdm_bench.catalogue.schema import read_yaml
from hqdm_bench.catalogue.specs import ArtefactSpec, ModelSpec, Protocol, Recipe
from hqdm_bench.catalogue.suites import Baseline, Cell, Comparison, Suite, SuiteModel
from hqdm_bench.common.errors import BenchError

__all__ = ["Catalogue", "load_catalogue"]

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Catalogue:
    """Everything in ``config/``, by name."""

    models: dict[str, ModelSpec]
    methods: dict[str, MethodSpec]
    protocols: dict[str, Protocol]
    recipes: dict[str, Recipe]
    artefacts: dict[str, ArtefactSpec]
    suites: dict[str, Suite]

    def model(self, name: str) -> ModelSpec:
        """A model by name; an unknown one is a BenchError with the known ones."""
        return pick(self.models, name, "model", "config/models.yaml")

    def method(self, name: str) -> MethodSpec:
        """A method by name; an unknown one is a BenchError with the known ones."""
        return pick(self.methods, name, "method", "config/methods.yaml")

    def method_on(self, name: str, model: str) -> MethodSpec:
        """A method as it is run on a model, whose data set may have settings of its own."""
        return self.method(name).on(self.model(model).paper_dataset)

    def protocol(self, name: str) -> Protocol:
        """A protocol by name; an unknown one is a BenchError with the known ones."""
        return pick(self.protocols, name, "protocol", "config/protocols.yaml")

    def recipe(self, name: str) -> Recipe:
        """A recipe by name; an unknown one is a BenchError with the known ones."""
        return pick(self.recipes, name, "recipe", "config/recipes.yaml")

    def artefact(self, name: str) -> ArtefactSpec:
        """An artefact by name; an unknown one is a BenchError with the known ones."""
        return pick(self.artefacts, name, "artefact", "config/artefacts.yaml")

    def suite(self, name: str) -> Suite:
        """A suite by name; an unknown one is a BenchError with the known ones."""
        return pick(self.suites, name, "suite", "config/suites/")


def pick(entries: Mapping[str, Entry], name: str, kind: str, where: str) -> Entry:
    """Look an entry up.

    Raises:
        BenchError: no such entry; the message lists those that exist.
    """
    if name not in entries:
        known = ", ".join(sorted(entries))
        raise BenchError(f"unknown {kind} '{name}' (see {where}); known: {known}")
    return entries[name]


def load_catalogue(root: Path) -> Catalogue:
    """Read ``root/config``.

    Raises:
        BenchError: a file is missing or breaks its schema, or a suite names what does not exist.
    """
    config = root / "config"
    models = {
        name: ModelSpec(name=name, **entry)
        for name, entry in read_yaml(config / "models.yaml", "models").items()
    }
    check_variants(models, config / "models.yaml")
    catalogue = Catalogue(
        models=models,
        methods={
            name: MethodSpec.read(name, entry)
            for name, entry in read_yaml(config / "methods.yaml", "methods").items()
        },
        protocols={
            name: Protocol(name=name, **entry)
            for name, entry in read_yaml(config / "protocols.yaml", "protocols").items()
        },
        recipes={
            name: Recipe.read(name, entry)
            for name, entry in read_yaml(config / "recipes.yaml", "recipes").items()
        },
        artefacts={
            name: ArtefactSpec(name=name, **{**entry, "urls": tuple(entry["urls"])})
            for name, entry in read_yaml(config / "artefacts.yaml", "artefacts").items()
        },
        suites={},
    )
    for path in sorted((config / "suites").glob("*.yaml")):
        suite = _suite(catalogue, path)
        catalogue.suites[suite.name] = suite
    return catalogue


def _suite(catalogue: Catalogue, path: Path) -> Suite:
    entry = read_yaml(path, "suite")
    if entry["name"] != path.stem:
        raise BenchError(f"{path}: name is '{entry['name']}'; it must be the file's '{path.stem}'")
    for part in entry["models"]:
        for name in (part["protocol"], *(b["protocol"] for b in part.get("baselines", []))):
            _require_extractor(catalogue.protocol(name), entry["extractor"], path)
    models = tuple(_suite_model(catalogue, entry["name"], part, path) for part in entry["models"])
    suite = Suite(
        entry["name"],
        entry["extractor"],
        models,
        entry["figures"],
        tuple(entry["tables"]),
        tuple(entry.get("reports", [])),
        tuple(
            Comparison(one["baseline"], tuple(one["methods"])) for one in entry.get("compare", [])
        ),
        entry.get("engine", "fake"),
    )
    check_suite(suite, catalogue.models, catalogue.protocols, path)
    for held in models:
        if any(catalogue.method(cell.method).work is not None for cell in held.cells):
            recipe, protocol = catalogue.recipe(held.recipe), catalogue.protocol(held.protocol)
            check_sampler(recipe, protocol, f"{path}: {held.model}")
    return suite


def _suite_model(
    catalogue: Catalogue, suite: str, entry: Mapping[str, Any], path: Path
) -> SuiteModel:
    catalogue.model(entry["model"])
    catalogue.protocol(entry["protocol"])
    catalogue.recipe(entry["recipe"])
    cells: list[Cell] = []
    for block in entry["cells"]:
        for method in block["methods"]:
            catalogue.method(method)
            for bits in block["bits"]:
                cells.extend(
                    Cell(suite, entry["model"], method, Bits.parse(bits), seed, entry["protocol"])
                    for seed in block["seeds"]
                )
    _refuse_repeats(cells, path)
    return SuiteModel(
        entry["model"],
        entry["protocol"],
        entry["recipe"],
        tuple(cells),
        entry.get("outliers", {}),
        _baselines(suite, entry, path),
        entry.get("images", True),
    )


def _baselines(suite: str, entry: Mapping[str, Any], path: Path) -> tuple[Baseline, ...]:
    found: list[Baseline] = []
    for part in entry.get("baselines", []):
        cell = Cell(suite, entry["model"], "fp", Bits(32, 32), 0, part["protocol"])
        if cell in [baseline.cell for baseline in found]:
            raise BenchError(f"{path}: baseline {part['protocol']} of {cell.model} is listed twice")
        expect = {metric: (low, high) for metric, (low, high) in part.get("expect", {}).items()}
        for metric, (low, high) in expect.items():
            if low > high:
                raise BenchError(
                    f"{path}: baseline {part['protocol']} of {cell.model} expects {metric} from "
                    f"{low} to {high}; write the lower value first"
                )
        found.append(Baseline(cell, expect))
    return tuple(found)


def _require_extractor(protocol: Protocol, extractor: str, path: Path) -> None:
    if protocol.extractor != extractor:
        raise BenchError(
            f"{path}: extractor is '{extractor}', protocol '{protocol.name}' scores with "
            f"'{protocol.extractor}'; name one for both"
        )


def _refuse_repeats(cells: Iterable[Cell], path: Path) -> None:
    seen = set()
    for cell in cells:
        if cell in seen:
            raise BenchError(f"{path}: cell {cell} is listed twice")
        if (cell.method == "fp") != cell.bits.full_precision:
            raise BenchError(f"{path}: cell {cell}: method fp goes with w32a32, and only that")
        seen.add(cell)
