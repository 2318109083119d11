"""The shipped weights: made by the current recipes, small enough, good enough to teach."""

from pathlib import Path

import pytest
import torch

from hqdm_bench.artefacts import embedded_names, embedded_weights
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata
from hqdm_bench.models import DDIM, load_latent_diffusion
from hqdm_bench.models.mini import ClassifierRecipe, TeacherRecipe, load_classifier, recipe_digest

CATALOGUE = load_catalogue(Path(__file__).parents[2])
EMBEDDED = [spec for spec in CATALOGUE.models.values() if spec.source == "embedded"]
MODELS = [spec.name for spec in EMBEDDED if spec.weights_of is None]
EXTRACTOR = "mini-classifier"


def weights(name):
    return embedded_weights(name, recipe_digest(CATALOGUE.model(name)))


@pytest.mark.parametrize("name", MODELS)
def test_recorded_recipe_is_the_current_one(name):
    spec = CATALOGUE.model(name)
    header = read_metadata(weights(name))
    assert header["recipe"] == TeacherRecipe.from_spec(spec).asdict()
    assert header["recipe_digest"] == recipe_digest(spec)


def test_classifier_is_the_current_one_and_accurate():
    path = embedded_weights(EXTRACTOR, ClassifierRecipe().digest)
    header = read_metadata(path)
    assert header["recipe_digest"] == ClassifierRecipe().digest
    model, report = load_classifier(path)
    assert report["accuracy"] > 0.95
    scenes = TeacherRecipe.from_spec(CATALOGUE.model("mini-imagenet")).data.scenes("validation")
    with torch.no_grad():
        guessed = model.eval()(torch.from_numpy(scenes.images(range(200)))).logits.argmax(1)
    assert (guessed == scenes.labels(range(200))).float().mean() > 0.95


def test_everything_together_is_at_most_20_megabytes():
    names = [*MODELS, EXTRACTOR]
    assert sorted(names) == embedded_names()
    folder = weights(MODELS[0]).parent
    assert sum((folder / f"{name}.safetensors").stat().st_size for name in names) <= 20e6


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_recognised_by_the_classifier(name):
    spec = CATALOGUE.model(name)
    model = load_latent_diffusion(spec, weights(name))
    classifier, report = load_classifier(embedded_weights(EXTRACTOR, ClassifierRecipe().digest))
    classes = spec.data["classes"]
    labels = torch.arange(20) % len(classes)
    given = labels if model.null_label is not None else None
    ddim = DDIM.from_schedule(model.schedule, 20, 0.0)
    x = torch.randn(20, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index in reversed(range(20)):
            eps = model.predict(x, int(ddim.timesteps[index]), given, 1.5)
            x = ddim.step(x, eps, index)
        guessed = classifier.eval()(model.decode(x).clamp(-1, 1)).logits.argmax(1)
    wanted = torch.tensor([report["classes"].index(classes[label]) for label in labels])
    assert (guessed == wanted).float().mean() >= 0.85


def test_another_recipe_or_an_unknown_name_is_refused():
    with pytest.raises(BenchError, match="made by recipe .*, the catalogue now describes 0000"):
        embedded_weights(MODELS[0], "0000")
    with pytest.raises(BenchError, match=r"no weights of 'maxi' are shipped .*--teachers trained"):
        embedded_weights("maxi", "0000")
