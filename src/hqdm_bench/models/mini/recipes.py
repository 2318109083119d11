"""Training recipes of the embedded models: a model's ``data`` and ``teacher``, checked."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, TypeVar

from hqdm_bench.catalogue.specs import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.models.mini.scenes import SceneSet

__all__ = [
    "REVISION",
    "DataRecipe",
    "FirstStageRecipe",
    "TeacherRecipe",
    "UNetRecipe",
    "first_stage_digest",
    "recipe_digest",
]

# Part of every digest: raise it when the drawing or training code changes what a recipe produces.
REVISION = 1


@dataclass(frozen=True)
class DataRecipe:
    """What the model is trained on.

    Attributes:
        set: always "scenes".
        classes: scene classes; the label of a class is its place.
        resolution: side of the images in pixels.
        seed: seed of the scenes.
    """

    set: str
    classes: tuple[str, ...]
    resolution: int
    seed: int

    def scenes(self, stream: str) -> SceneSet:
        """The set's images of one stream: "train", "validation" or "reference"."""
        return SceneSet(self.classes, self.resolution, self.seed, stream)


@dataclass(frozen=True)
class FirstStageRecipe:
    """How the autoencoder is trained.

    Attributes:
        images: training images.
        iterations: Adam updates.
        gradient_weight: weight of the L1 error of horizontal and vertical differences.
        commitment: weight that pulls encodings to their codes (vq; codes follow with weight 1).
        restart_every: updates between two replacements of unused codes by encodings (vq).
        kl_weight: weight of the Kullback-Leibler term, relative to a summed image error (kl).
    """

    images: int
    iterations: int
    batch: int
    learning_rate: float
    gradient_weight: float = 1.0
    commitment: float = 0.25
    restart_every: int = 25
    kl_weight: float = 1e-6


@dataclass(frozen=True)
class UNetRecipe:
    """How the noise predictor is trained.

    Attributes:
        images: training images, encoded once.
        iterations: AdamW updates.
        warmup: updates of linearly growing learning rate; a cosine takes it to 0 afterwards.
        ema_decay: decay of the averaged weights, which become the teacher.
        label_drop: share of labels replaced by the null class (class-conditional models).
    """

    images: int
    iterations: int
    batch: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 1e-2
    ema_decay: float = 0.999
    label_drop: float = 0.1


@dataclass(frozen=True)
class TeacherRecipe:
    """A whole training.

    Attributes:
        seed: of initial weights, batches, noise.
        validation_images: held-out images for reconstruction error and noise-prediction loss.
        checkpoint_every: updates between two checkpoints; does not change the weights.
    """

    data: DataRecipe
    first_stage: FirstStageRecipe
    unet: UNetRecipe
    seed: int
    validation_images: int = 512
    checkpoint_every: int = 500

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> "TeacherRecipe":
        """Read ``spec.data`` and ``spec.teacher``.

        Raises:
            BenchError: the model is not embedded, a key is unknown or missing, or a value is out of
                range.
        """
        if spec.data is None or spec.teacher is None:
            raise BenchError(
                f"model '{spec.name}' cannot be trained here: it has no data and teacher recipe "
                "(only embedded models have); name its checkpoint instead"
            )
        where = f"model '{spec.name}'"
        teacher = dict(spec.teacher)
        first_stage = _section(teacher.pop("first_stage", None), FirstStageRecipe, where)
        unet = _section(teacher.pop("unet", None), UNetRecipe, where)
        data = _section({**spec.data}, DataRecipe, where)
        parts = {"data": data, "first_stage": first_stage, "unet": unet}
        recipe = _section({**teacher, **parts}, cls, where)
        _check(recipe, spec, where)
        return recipe

    def asdict(self) -> dict[str, Any]:
        """Every field, lists instead of tuples, for the header of a file."""
        values = asdict(self)
        values["data"]["classes"] = list(self.data.classes)
        return values


Section = TypeVar("Section", DataRecipe, FirstStageRecipe, UNetRecipe, TeacherRecipe)


def _section(values: Mapping[str, Any] | None, kind: type[Section], where: str) -> Section:
    """Build a recipe from a mapping; every key must be known, every one without default present."""
    title = kind.__name__
    allowed = {field.name: field.type for field in fields(kind)}
    required = [field.name for field in fields(kind) if field.default is MISSING]
    if not isinstance(values, Mapping):
        raise BenchError(f"{where}: {title} is missing; it needs {', '.join(required)}")
    unknown = sorted(set(values) - set(allowed))
    missing = sorted(set(required) - set(values))
    if unknown or missing:
        raise BenchError(
            f"{where}: {title} has unknown keys {unknown} and lacks {missing}; "
            f"allowed are {', '.join(allowed)}"
        )
    converted = {key: _converted(value, allowed[key], key, where) for key, value in values.items()}
    return kind(**converted)


def _converted(value: Any, kind: Any, key: str, where: str) -> Any:
    """A value of the annotated type; whole numbers are accepted for reals."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str) and (not isinstance(value, kind) or isinstance(value, bool)):
        raise BenchError(f"{where}: {key} is {value!r}; it must be of type {kind.__name__}")
    if key == "classes":
        if not isinstance(value, list | tuple):
            raise BenchError(f"{where}: classes is {value!r}; it must be a list of scene classes")
        return tuple(value)
    return value


def _check(recipe: TeacherRecipe, spec: ModelSpec, where: str) -> None:
    """Values that a type cannot rule out."""
    if recipe.data.set != "scenes":
        raise BenchError(f"{where}: data set {recipe.data.set!r} is unknown; only 'scenes' exists")
    recipe.data.scenes("train")
    if spec.condition and spec.condition["n_classes"] != len(recipe.data.classes) + 1:
        raise BenchError(
            f"{where}: n_classes is {spec.condition['n_classes']}; {len(recipe.data.classes)} scene"
            f" classes and the null class need {len(recipe.data.classes) + 1}"
        )
    for name, section in (("first_stage", recipe.first_stage), ("unet", recipe.unet)):
        for key in ("images", "iterations", "batch", "learning_rate"):
            if getattr(section, key) <= 0:
                raise BenchError(f"{where}: teacher.{name}.{key} must be positive")
    for key in ("ema_decay", "label_drop"):
        if not 0 <= getattr(recipe.unet, key) < 1:
            raise BenchError(f"{where}: teacher.unet.{key} must be in [0, 1)")
    for key in ("validation_images", "checkpoint_every"):
        if getattr(recipe, key) <= 0:
            raise BenchError(f"{where}: teacher.{key} must be positive")
    if recipe.first_stage.restart_every <= 0:
        raise BenchError(f"{where}: teacher.first_stage.restart_every must be positive")


def recipe_digest(spec: ModelSpec) -> str:
    """16 hexadecimal digits over everything that determines the trained weights.

    Raises:
        BenchError: the recipe is not valid.
    """
    recipe = TeacherRecipe.from_spec(spec).asdict()
    del recipe["checkpoint_every"], recipe["validation_images"]
    names = ("unet", "first_stage", "condition", "scale_factor", "beta_start", "beta_end")
    structure = {name: getattr(spec, name) for name in names}
    return digest({"revision": REVISION, "structure": structure, "recipe": recipe})


def first_stage_digest(spec: ModelSpec) -> str:
    """The same over what determines the first stage alone."""
    recipe = TeacherRecipe.from_spec(spec).asdict()
    training = {name: recipe[name] for name in ("data", "first_stage", "seed")}
    return digest({"revision": REVISION, "structure": spec.first_stage, "recipe": training})
