"""The embedded latent diffusion models: procedural data, training, and the feature extractor."""

from hqdm_bench.models.mini.classifier import (
    ClassifierOutput,
    ClassifierRecipe,
    MiniClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from hqdm_bench.models.mini.recipes import TeacherRecipe, recipe_digest
from hqdm_bench.models.mini.scenes import SCENES, SceneSet
from hqdm_bench.models.mini.teacher import train_teacher

__all__ = [
    "SCENES",
    "ClassifierOutput",
    "ClassifierRecipe",
    "MiniClassifier",
    "SceneSet",
    "TeacherRecipe",
    "load_classifier",
    "recipe_digest",
    "save_classifier",
    "train_classifier",
    "train_teacher",
]
