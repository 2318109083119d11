"""The small classifier whose features stand in for Inception's where embedded models are measured.

It plays the same three parts: pooled features (Frechet distance, precision, recall), a spatial map
of its middle (spatial Frechet distance) and class probabilities (Inception score, class accuracy).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.models.mini.scenes import SCENES, SceneSet

__all__ = [
    "ClassifierOutput",
    "ClassifierRecipe",
    "MiniClassifier",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]

INPUT = 32  # side at which the classifier looks at an image
FEATURES = 64
SPATIAL_CHANNELS = 7  # as many as sFID keeps of Inception's map
# (channels out, stride) of the convolutions; the spatial map is taken behind number 4, at 8x8.
LAYERS = ((32, 2), (32, 1), (48, 2), (64, 1), (64, 2), (FEATURES, 1))
SPATIAL_LAYER = 3


class ClassifierOutput(NamedTuple):
    """What the metrics need of N images."""

    features: Tensor  # (N, 64)
    spatial: Tensor  # (N, 448), an 8 x 8 x 7 map flattened in the order H, W, C
    logits: Tensor  # (N, classes)


@dataclass(frozen=True)
class ClassifierRecipe:
    """Everything that determines the weights of the classifier.

    Attributes:
        iterations: AdamW updates, learning rate warmed up and then lowered to 0 along a cosine.
        images: training images, balanced over the classes.
        validation_images: held-out images on which the accuracy is reported.
    """

    classes: tuple[str, ...] = tuple(SCENES)
    images: int = 12000
    validation_images: int = 2400
    iterations: int = 1200
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 0

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over every field."""
        return digest(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClassifierRecipe":
        """Build a recipe from a mapping.

        Raises:
            BenchError: an unknown key.
        """
        allowed = cls.__dataclass_fields__
        unknown = sorted(set(values) - set(allowed))
        if unknown:
            raise BenchError(
                f"unknown classifier recipe keys {unknown}; allowed are {', '.join(allowed)}"
            )
        return cls(**{**values, "classes": tuple(values.get("classes", tuple(SCENES)))})


class MiniClassifier(nn.Module):
    """Six convolutions with group normalisation, then the mean over space and a linear layer."""

    def __init__(self, classes: int = len(SCENES)) -> None:
        super().__init__()
        channels = [3] + [width for width, _ in LAYERS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1)
            for before, (after, stride) in zip(channels, LAYERS, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width, _ in LAYERS)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> ClassifierOutput:
        """Classify images.

        Args:
            images: uint8 (N, R, R, 3), or float (N, 3, R, R) in [-1, 1]; R a multiple of 32.

        Raises:
            BenchError: another layout or resolution.
        """
        hidden = prepare(images)
        spatial = hidden
        for index, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            hidden = functional.silu(norm(convolution(hidden)))
            if index == SPATIAL_LAYER:
                spatial = hidden[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        features = hidden.mean((2, 3))
        return ClassifierOutput(features, spatial, self.head(features))


def prepare(images: Tensor) -> Tensor:
    """Images in either layout to float (N, 3, 32, 32) in [-1, 1]; larger ones are averaged."""
    if images.dtype == torch.uint8:
        images = images.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if images.ndim != 4 or images.shape[1] != 3:
        raise BenchError(
            f"the classifier wants uint8 (N, R, R, 3) or float (N, 3, R, R), not {images.shape}"
        )
    factor, rest = divmod(images.shape[-1], INPUT)
    if rest or factor < 1 or images.shape[-1] != images.shape[-2]:
        raise BenchError(
            f"the classifier wants square images with a multiple of {INPUT} pixels a side,"
            f" not {tuple(images.shape[-2:])}"
        )
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def train_classifier(
    recipe: ClassifierRecipe, progress: bool = True
) -> tuple[MiniClassifier, dict[str, Any]]:
    """Train the classifier on scenes.

    Returns:
        The classifier in evaluation mode and a report: recipe, digest, parameters, loss, accuracy
        on held-out images, overall and by class.
    """
    model = initialised(recipe)
    scenes = SceneSet(recipe.classes, INPUT, recipe.seed)
    images = torch.from_numpy(scenes.images(range(recipe.images)))
    labels = scenes.labels(range(recipe.images))
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.iterations, pct_start=0.1
    )
    total = 0.0
    with Progress("classifier", recipe.iterations) as bar:
        for update in range(recipe.iterations):
            random = generator("classifier", recipe.seed, update)
            chosen = torch.randint(recipe.images, (recipe.batch,), generator=random)
            loss = functional.cross_entropy(
                model(augmented(images[chosen], random)).logits, labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total = 0.98 * total + 0.02 * loss.item()
            if progress:
                bar.update(update + 1, loss=total)
    return model.eval(), report(model, recipe, total)


def initialised(recipe: ClassifierRecipe) -> MiniClassifier:
    """Untrained classifier whose weights depend on the recipe's seed alone."""
    model = MiniClassifier(len(recipe.classes))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            random = generator("classifier-init", recipe.seed, name)
            nn.init.uniform_(parameter, -bound, bound, generator=random)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Mirrored at random, with a little noise: features should not hang on single grey levels."""
    pixels = prepare(images)
    mirrored = torch.rand(len(pixels), 1, 1, 1, generator=random) < 0.5
    noise = 0.03 * torch.randn(pixels.shape, generator=random)
    return torch.where(mirrored, pixels.flip(-1), pixels) + noise


@torch.no_grad()
def report(model: MiniClassifier, recipe: ClassifierRecipe, loss: float) -> dict[str, Any]:
    """Accuracy on the validation stream and what the classifier was made from."""
    scenes = SceneSet(recipe.classes, INPUT, recipe.seed, "validation")
    numbers = range(recipe.validation_images)
    labels = scenes.labels(numbers)
    parts = torch.from_numpy(scenes.images(numbers)).split(256)
    right = torch.cat([model(part).logits.argmax(1) for part in parts]) == labels
    return {
        "classes": list(recipe.classes),
        "recipe": {**asdict(recipe), "classes": list(recipe.classes)},
        "recipe_digest": recipe.digest,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": loss,
        "accuracy": right.double().mean().item(),
        "class_accuracy": {
            name: right[labels == label].double().mean().item()
            for label, name in enumerate(recipe.classes)
        },
    }


def save_classifier(model: MiniClassifier, path: Path, report: Mapping[str, Any]) -> None:
    """Write weights (float32) and report as safetensors."""
    write_tensors(path, model.state_dict(), report)


def load_classifier(path: Path) -> tuple[MiniClassifier, dict[str, Any]]:
    """Read what ``save_classifier`` wrote.

    Raises:
        BenchError: the file is missing, or does not hold a classifier.
    """
    tensors, metadata = read_tensors(path)
    if "head.weight" not in tensors:
        raise BenchError(f"{path} does not hold a classifier; delete it and run again")
    model = MiniClassifier(len(tensors["head.weight"]))
    try:
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise BenchError(f"{path} does not fit the classifier ({error})") from error
    return model.eval(), metadata
