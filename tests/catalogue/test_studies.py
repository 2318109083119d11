"""Suites of students without images, comparisons, reports, and variants of embedded models."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hqdm_bench.artefacts import suite_artefacts
from hqdm_bench.catalogue import Comparison, Layout, load_catalogue
from hqdm_bench.catalogue.costs import load_costs
from hqdm_bench.catalogue.jobs import suite_jobs
from hqdm_bench.catalogue.plan import make_plan
from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.mini import recipe_digest

ROOT = Path(__file__).parents[2]
STRENGTHS = (1, 2, 4, 8, 16)
STRENGTH = {
    "kind": "outlier_strength",
    "models": ["mini-imagenet-outliers-1"],
    "methods": ["hqdm"],
    "bits": "w8a8",
}


@pytest.fixture
def catalogue_with(tmp_path):
    """The catalogues after a change to one file; suite `eight` is the simplest there is."""
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def load(file, change):
        path = tmp_path / "config" / file
        value = yaml.safe_load(path.read_text())
        change(value)
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return load_catalogue(tmp_path)

    return load


def students_only(suite):
    """Take everything that shows images out of suite `eight`."""
    suite["models"][0]["images"] = False
    suite["models"][0]["cells"].pop(0)
    suite["tables"] = []


def edited(*changes):
    def change(suite):
        for one in changes:
            one(suite)

    return change


def compare(*pairs):
    entries = [{"baseline": baseline, "methods": methods} for baseline, methods in pairs]
    return lambda suite: suite.update(reports=["differences"], compare=entries)


def test_without_images_there_are_students_and_nothing_else(catalogue_with):
    catalogue = catalogue_with("suites/eight.yaml", students_only)
    suite = catalogue.suite("eight")
    (entry,) = suite.models
    assert not entry.images
    assert entry.scored == ()
    assert entry.students == suite.cells
    counts = suite_jobs(catalogue, suite).by_rule()
    assert counts == {"embedded_teacher": 1, "teacher_trajectories": 1, "train_student": 6}


def test_images_are_the_default(catalogue_with):
    catalogue = load_catalogue(ROOT)
    (entry,) = catalogue.suite("eight").models
    assert entry.images
    assert entry.scored == entry.cells
    assert [cell.method for cell in entry.cells if cell not in entry.students] == ["fp"]


def test_checkpoints_without_images_need_no_extractor_and_no_reference(catalogue_with):
    def change(suite):
        del suite["models"][1:], suite["models"][0]["baselines"], suite["models"][0]["cells"][0]
        suite["models"][0]["images"] = False
        suite.update(tables=[], figures={})

    catalogue = catalogue_with("suites/paper.yaml", change)
    suite = catalogue.suite("paper")
    files = [spec.name for spec in suite_artefacts(catalogue, suite)]
    assert files == ["ldm4-imagenet"]
    assert files == [spec.name for spec in suite_jobs(catalogue, suite).artefact_specs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda suite: suite["models"][0].update(images=False),
            r"mini-imagenet has 'images: false' and cells of method fp",
        ),
        (
            edited(students_only, lambda suite: suite.update(tables=[1])),
            r"'images: false', table 1 of 'tables' shows metrics of its images",
        ),
        (
            edited(
                students_only,
                lambda suite: suite["models"][0].update(baselines=[{"protocol": "mini-imagenet"}]),
            ),
            r"'images: false' and 'baselines', which are image sets",
        ),
        (
            edited(
                students_only,
                lambda suite: suite["figures"].update(
                    fig15_x={"kind": "differences", "model": "mini-imagenet", "metrics": ["fid"]}
                ),
            ),
            r"figures\.fig15_x needs images of 'mini-imagenet', which has 'images: false'",
        ),
        (
            lambda suite: suite["figures"].update(fig16_x=STRENGTH),
            r"figures\.fig16_x shows 'mini-imagenet-outliers-1', not in the suite",
        ),
        (
            lambda suite: suite["figures"].update(
                fig16_x={"kind": "outlier_strength", "model": "mini-imagenet"}
            ),
            r"figures\.fig16_x: missing key models",
        ),
        (
            lambda suite: suite["figures"].update(
                fig04_x={"kind": "loss_curve", "model": "mini-imagenet", "bits": "w8a8"}
            ),
            r"figures\.fig04_x\.bits is 'w8a8'; kind loss_curve takes a list of bit-widths",
        ),
        (
            lambda suite: suite["figures"].update(
                fig15_x={"kind": "differences", "model": "mini-imagenet", "bits": ["w8a8"]}
            ),
            r"figures\.fig15_x\.bits is \['w8a8'\]; kind differences takes one bit-width",
        ),
        (
            lambda suite: suite["figures"].update(fig04_x={"kind": "loss_curve"}),
            r"figures\.fig04_x: missing key model",
        ),
        (
            lambda suite: suite.update(reports=["differences"]),
            r"reports has differences; say under 'compare'",
        ),
        (
            lambda suite: suite.update(reports=["table"]),
            r"reports\.0 is 'table'; allowed: differences, comparison, methods",
        ),
        (
            compare(("hqdm", ["hqdm-k3"])),
            r"compare names 'hqdm-k3', of which the suite has no cell; it has fp, efficientdm",
        ),
        (compare(("hqdm-k3", ["hqdm"])), r"compare names 'hqdm-k3'"),
        (compare(("hqdm", ["hqdm"])), r"compare sets 'hqdm' against itself"),
        (
            compare(("hqdm", ["efficientdm"]), ("hqdm", ["efficientdm"])),
            r"compare sets 'efficientdm' against 'hqdm' twice",
        ),
    ],
)
def test_what_a_suite_cannot_show_is_refused(catalogue_with, change, message):
    with pytest.raises(BenchError, match=rf"suites/eight\.yaml: .*{message}"):
        catalogue_with("suites/eight.yaml", change)


def test_methods_side_by_side_need_no_comparison(catalogue_with):
    found = catalogue_with("suites/eight.yaml", lambda suite: suite.update(reports=["methods"]))
    suite = found.suite("eight")
    assert (suite.reports, suite.studies, suite.comparisons) == (("methods",), (), ())
    assert suite_jobs(found, suite).by_rule()["report_table"] == 1


def test_errors_over_timesteps_need_a_protocol_that_records_them(catalogue_with):
    def untraced(protocols):
        protocols["mini-imagenet"]["trace_images"] = 0

    message = r"figures\.fig18_error_growth shows errors over .* protocol 'mini-imagenet' does not"
    with pytest.raises(BenchError, match=rf"suites/mini\.yaml: {message} record"):
        catalogue_with("protocols.yaml", untraced)


@pytest.mark.parametrize("kind", ["quality_bits", "quality_cost"])
def test_figures_of_several_models_name_them(catalogue_with, kind):
    figure = {"kind": kind, "model": "mini-imagenet", "methods": ["hqdm"], "metrics": ["fid"]}
    with pytest.raises(BenchError, match=r"figures\.fig17_x: missing key models"):
        catalogue_with("suites/eight.yaml", lambda suite: suite["figures"].update(fig17_x=figure))


def test_comparisons_and_their_files(catalogue_with):
    catalogue = catalogue_with("suites/eight.yaml", compare(("hqdm", ["efficientdm"])))
    suite = catalogue.suite("eight")
    assert suite.reports == ("differences",)
    assert suite.comparisons == (Comparison("hqdm", ("efficientdm",)),)
    assert suite_jobs(catalogue, suite).by_rule()["report_table"] == 1
    path = Layout(Path("root")).report("eight", "differences", "md")
    assert path == Path("root/results/eight/tables/differences.md")


@pytest.mark.parametrize("strength", STRENGTHS)
def test_variants_have_the_weights_and_the_operations_of_their_base(strength):
    catalogue, costs = load_catalogue(ROOT), load_costs(ROOT)
    base = catalogue.model("mini-imagenet")
    spec = catalogue.model(f"mini-imagenet-outliers-{strength}")
    assert spec.base == base.base == base.name
    assert spec.outliers == {"factor": strength, "share": 0.03, "seed": 0}
    assert recipe_digest(spec) == recipe_digest(base)
    assert costs.operations(spec) is costs.operations(base)
    assert spec.name not in costs.models


def test_fields_of_variants_do_not_touch_other_models():
    """The workflow compares digests of entries with those recorded when files were made."""
    catalogue = load_catalogue(ROOT)
    held = set(catalogue.model("mini-imagenet").asdict())
    assert {"name", "unet", "artefact", "data", "teacher"} <= held
    added = set(catalogue.model("mini-imagenet-outliers-2").asdict()) - held
    assert added == {"weights_of", "outliers"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_of": "maxi"}, r"weights_of is 'maxi'; models with shipped weights: mini-im"),
        ({"weights_of": "imagenet"}, r"weights_of is 'imagenet'; models with shipped weights"),
        ({"weights_of": "mini-imagenet-outliers-2"}, r"models with shipped weights"),
        ({"weights_of": "mini-bedrooms"}, r"but its 'unet' is another one"),
        ({"teacher": {"seed": 1}}, r"but its 'teacher' is another one"),
        ({"outliers": {"factor": 0, "share": 0.1, "seed": 0}}, r"outliers\.factor is 0"),
        ({"outliers": {"factor": 2, "share": 1.5, "seed": 0}}, r"outliers\.share is 1\.5"),
        ({"outliers": {"factor": 2}}, r"outliers: missing key seed, share"),
    ],
)
def test_a_variant_without_a_base_is_refused(catalogue_with, change, message):
    with pytest.raises(BenchError, match=rf"models\.yaml: .*{message}"):
        catalogue_with(
            "models.yaml", lambda models: models["mini-imagenet-outliers-1"].update(change)
        )


def test_differences_hold_every_variant_against_what_it_varies():
    catalogue = load_catalogue(ROOT)
    suite = catalogue.suite("differences")
    held = {cell.method for cell in suite.cells}
    tried = {cell.method for cell in catalogue.suite("tuning").cells}
    families = {"double_hadamard", "efficientdm", "fp", "hqdm", "hqdm_plus"}
    trained = {name for name, spec in catalogue.methods.items() if spec.implementation in families}
    assert held | tried == trained
    compared = [(one.baseline, method) for one in suite.comparisons for method in one.methods]
    assert {method for _, method in compared} == held - {"fp", "hqdm", "efficientdm"}
    for method in sorted({method for _, method in compared}):
        family = method.partition("-")[0]
        baseline = {"double": "hqdm", "efficientdm": "efficientdm", "hqdm": "hqdm"}[family]
        if method != "double-hadamard-random-signs":
            assert (baseline, method) in compared
    seeds = Counter((cell.method, cell.seed) for cell in suite.cells if cell.method != "fp")
    assert seeds == Counter({(method, n): 1 for method, _ in seeds for n in range(3)})


def test_single_differences_are_single():
    """Between a method and what it is set against, one option differs: what its title says."""
    catalogue = load_catalogue(ROOT)
    for one in catalogue.suite("differences").comparisons:
        base = catalogue.method(one.baseline)
        for name in one.methods:
            spec = catalogue.method(name)
            if spec.implementation != base.implementation or name.endswith("-as-paper"):
                continue
            changed = {key for key in spec.options if spec.options[key] != base.options.get(key)}
            # Another axis comes with what to do where the block does not divide it.
            assert len(changed - {"indivisible"}) == 1, name


def test_outliers_are_one_model_at_growing_strengths():
    suite = load_catalogue(ROOT).suite("outliers")
    assert [entry.model for entry in suite.models] == suite.figures["fig16_outlier_strength"][
        "models"
    ]
    factors = [int(entry.model.rpartition("-")[2]) for entry in suite.models]
    assert factors == [1, 4, 16]
    assert set(factors) < set(STRENGTHS)
    assert not any(entry.images for entry in suite.models)
    assert len({tuple((c.method, c.seed) for c in entry.cells) for entry in suite.models}) == 1


def test_tuning_sees_nothing_that_plus_measures():
    catalogue = load_catalogue(ROOT)
    tuning, plus = catalogue.suite("tuning"), catalogue.suite("plus")
    assert [entry.model for entry in tuning.models] == ["mini-imagenet"]
    assert not any(entry.images for entry in tuning.models)
    seed = catalogue.recipe(tuning.models[0].recipe).seed
    assert seed not in {catalogue.recipe(entry.recipe).seed for entry in plus.models}
    assert plus.comparisons == (Comparison("hqdm-plus", ("efficientdm", "hqdm")),)
    assert {entry.model for entry in plus.models} == {
        "mini-imagenet",
        "mini-bedrooms",
        "mini-churches",
    }


@pytest.mark.parametrize("name", ["differences", "outliers", "plus", "tuning"])
def test_studies_are_planned_from_measured_units(name, tmp_path):
    catalogue = load_catalogue(ROOT)
    plan = make_plan(catalogue, catalogue.suite(name), load_costs(ROOT), tmp_path)
    (measured,) = [timing for timing in plan.timings if timing.basis == "measured"]
    assert 0 < measured.stages["train"][0] < measured.total[0]
    drawn = any(entry.images for entry in plan.suite.models)
    assert (measured.stages["sample"][0] > 0) == (measured.stages["score"][0] > 0) == drawn
    assert (plan.disk["references"] > 0) == drawn


def test_counted_operations_name_no_variant():
    counted = json.loads((ROOT / "config/costs/operations.json").read_text())["models"]
    catalogue = load_catalogue(ROOT)
    assert list(counted) == [s.name for s in catalogue.models.values() if s.weights_of is None]
