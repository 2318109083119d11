"""What the catalogue says of a method's work, for `plan`, is what its stages do."""

from pathlib import Path

import pytest

from hqdm_bench.catalogue import MethodSpec, load_catalogue
from hqdm_bench.methods import (
    CorrectNoise,
    LearnSteps,
    MethodOptions,
    RoundWeights,
    Stage,
    get_method,
)
from hqdm_bench.methods.stage_finetune import FineTune
from hqdm_bench.methods.stage_scaling import LearnScaling

ROOT = Path(__file__).resolve().parents[2]
SPECS = load_catalogue(ROOT).methods


def options_of(spec: MethodSpec) -> MethodOptions:
    return get_method(spec.implementation).options.read(spec.options, spec.name)


def rows(stage: Stage) -> int:
    if isinstance(stage, (RoundWeights, LearnSteps)):
        return stage.fit.updates * stage.fit.batch
    if isinstance(stage, LearnScaling):
        return stage.settings.iterations * stage.settings.batch
    if isinstance(stage, FineTune):
        return stage.epochs * stage.samples * stage.timesteps
    return 0  # no gradients, or those of the time embedding alone


@pytest.mark.parametrize("dataset", [None, "imagenet", "bedrooms", "churches"])
@pytest.mark.parametrize("name", SPECS)
def test_the_catalogue_counts_the_stages(name: str, dataset: str | None) -> None:
    spec = SPECS[name].on(dataset)
    options = options_of(spec)
    assert (spec.work is not None) == options.post_training
    if spec.work is None:
        return
    stages = options.stages()
    assert spec.work.rows == sum(map(rows, stages))
    assert spec.work.images == options.calibration_images
    paths = [stage.images for stage in stages if isinstance(stage, CorrectNoise)]
    assert spec.work.paths == sum(paths)


@pytest.mark.parametrize(
    ("name", "dataset", "option", "value"),
    [
        ("qdiffusion", "bedrooms", "activation_grid", "symmetric"),
        ("qdiffusion", "churches", "activation_grid", "asymmetric"),
        ("tfmq", "churches", "rounding_timesteps", 16),
        ("quest", "bedrooms", "temporal_epochs", 200),
        ("dmq", "churches", "dataset", "churches"),
        ("dmq", None, "dataset", "imagenet"),
    ],
)
def test_a_data_set_has_its_released_settings(
    name: str, dataset: str | None, option: str, value: object
) -> None:
    spec = SPECS[name].on(dataset)
    assert options_of(spec).resolved()[option] == value
    assert spec.asdict().keys() == {"name", "title", "implementation", "options"}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dataset", ["imagenet", "bedrooms", "churches"])
def test_settings_of_every_data_set_can_be_read(name: str, dataset: str) -> None:
    options_of(SPECS[name].on(dataset))
