"""Recipes of the embedded models: digests and error messages."""

import copy
import dataclasses
from typing import Any

import pytest

from hqdm_bench.catalogue.specs import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.mini.recipes import TeacherRecipe, first_stage_digest, recipe_digest

FIRST_STAGE = {"images": 8, "iterations": 3, "batch": 2, "learning_rate": 1e-3}
FIRST_STAGE |= {"gradient_weight": 1.0, "commitment": 0.25, "restart_every": 2, "kl_weight": 1e-6}
UNET = {"images": 8, "iterations": 3, "batch": 2, "learning_rate": 1e-3, "warmup": 1}
UNET |= {"weight_decay": 0.0, "ema_decay": 0.9, "label_drop": 0.1}


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "name": "tiny",
        "title": "tiny",
        "paper_dataset": "imagenet",
        "source": "embedded",
        "unet": {"model_channels": 32},
        "first_stage": {"kind": "vq", "embed_dim": 3},
        "condition": {"n_classes": 3, "embed_dim": 16},
        "scale_factor": 1.0,
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "data": {"set": "scenes", "classes": ["ball", "cube"], "resolution": 32, "seed": 0},
        "teacher": {"seed": 0, "first_stage": dict(FIRST_STAGE), "unet": dict(UNET)},
    }
    return ModelSpec(**{**values, **changes})


def changed(section: str, *path: str, value: Any) -> ModelSpec:
    """The specification with one nested entry replaced."""
    nested = copy.deepcopy(getattr(spec(), section))
    target = nested
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return spec(**{section: nested})


def variants() -> dict[str, ModelSpec]:
    result = {f"first_stage.{key}": ("teacher", "first_stage", key) for key in FIRST_STAGE}
    result |= {f"unet.{key}": ("teacher", "unet", key) for key in UNET}
    made = {
        name: changed(*path, value=2 * (FIRST_STAGE | UNET)[path[-1]] or 0.5)
        if path[-1] != "ema_decay"
        else changed(*path, value=0.5)
        for name, path in result.items()
    }
    made["seed"] = changed("teacher", "seed", value=1)
    made["data.seed"] = changed("data", "seed", value=1)
    made["data.resolution"] = changed("data", "resolution", value=64)
    made["data.classes"] = changed("data", "classes", value=["cube", "ball"])
    made["structure.unet"] = changed("unet", "model_channels", value=64)
    made["structure.first_stage"] = changed("first_stage", "embed_dim", value=4)
    made["structure.condition"] = changed("condition", "embed_dim", value=32)
    made["beta_start"] = spec(beta_start=0.001)
    made["beta_end"] = spec(beta_end=0.02)
    made["scale_factor"] = spec(scale_factor=None)
    return made


def test_every_field_of_the_recipe_changes_the_digest() -> None:
    named = {name: recipe_digest(variant) for name, variant in variants().items()}
    named["unchanged"] = recipe_digest(spec())
    assert len(set(named.values())) == len(named)
    covered = {field.name for field in dataclasses.fields(TeacherRecipe)}
    assert covered == {
        "data",
        "first_stage",
        "unet",
        "seed",
        "validation_images",
        "checkpoint_every",
    }


def test_digest_of_the_first_stage_ignores_the_unet() -> None:
    own = {"seed", "data", "first_stage"}
    for name, variant in variants().items():
        relevant = name.split(".")[0] in own or name == "structure.first_stage"
        assert (first_stage_digest(variant) != first_stage_digest(spec())) == relevant, name


def test_what_does_not_touch_weights_does_not_touch_the_digest() -> None:
    reference = recipe_digest(spec())
    assert recipe_digest(changed("teacher", "checkpoint_every", value=7)) == reference
    assert recipe_digest(changed("teacher", "validation_images", value=7)) == reference
    assert recipe_digest(spec(name="other", title="other")) == reference


def test_defaults_are_filled_in() -> None:
    recipe = TeacherRecipe.from_spec(spec())
    assert (recipe.validation_images, recipe.checkpoint_every) == (512, 500)
    assert recipe.data.scenes("reference").stream == "reference"
    assert recipe.asdict()["data"]["classes"] == ["ball", "cube"]


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (spec(teacher=None), "cannot be trained here"),
        (spec(data=None), "cannot be trained here"),
        (spec(teacher={"seed": 0, "unet": UNET}), "FirstStageRecipe is missing"),
        (changed("teacher", "unet", "epochs", value=3), "UNetRecipe has unknown keys.*epochs"),
        (changed("teacher", "epochs", value=3), "TeacherRecipe has unknown keys.*epochs"),
        (spec(data={"set": "scenes", "classes": ["ball"]}), "lacks.*resolution"),
        (changed("data", "classes", value=["ball", "bull"]), "bull"),
        (changed("data", "classes", value="ball"), "must be a list"),
        (changed("data", "set", value="lsun"), "only 'scenes'"),
        (changed("data", "resolution", value="32"), "type int"),
        (changed("teacher", "unet", "iterations", value=0), "unet.iterations must be positive"),
        (changed("teacher", "unet", "batch", value=True), "type int"),
        (changed("teacher", "unet", "ema_decay", value=1.0), "ema_decay"),
        (changed("teacher", "first_stage", "restart_every", value=0), "restart_every"),
        (changed("teacher", "checkpoint_every", value=0), "checkpoint_every"),
        (changed("condition", "n_classes", value=2), "need 3"),
    ],
)
def test_bad_recipes_are_refused(variant: ModelSpec, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        TeacherRecipe.from_spec(variant)
