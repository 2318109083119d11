"""Entries of the catalogues as frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from hqdm_bench.catalogue.method_spec import MethodSpec
from hqdm_bench.catalogue.post_training import PostTraining
from hqdm_bench.common.errors import BenchError

__all__ = ["ArtefactSpec", "ModelSpec", "Protocol", "Recipe"]


@dataclass(frozen=True)
class Protocol:
    """How images are drawn and scored; every metrics file holds one, whole.

    Attributes:
        steps: DDIM steps; must divide 1000 so that requested and real count agree.
        eta: DDIM noise share, 0 deterministic to 1 ancestral.
        guidance: classifier-free guidance scale; 1 is off.
        labels: equal counts per class, independent draws, or none (unconditional).
        order: order of labels over image indices.
        rounding: of [0, 255] to uint8.
        images: number of images per cell.
        batch: images per forward pass; shards hold whole batches.
        shards: files the images are spread over.
        seed: of noise and labels, shared by every cell, so methods see the same ones.
        reference: name of the reference set.
        reference_images: reference images behind the moments (FID, sFID); None takes the moments
            stored in a published reference batch, which does not say how many images they are of.
        pr_reference_images: reference images behind precision and recall.
        extractor: feature extractor.
        is_split: images per split of the Inception score.
        pr_k: neighbour whose distance is the radius of precision and recall.
        teacher_precision: of the network when the full-precision model draws; students always run
            in float32.
        bootstrap: replicates behind the standard errors over images; 0 makes none.
        trace_images: images whose latents are kept after every sampling step, for the growth of a
            student's error along the trajectory.
        clean_fid: whether to measure a second FID on images resized as clean-fid does.
    """

    name: str
    steps: int
    eta: float
    guidance: float
    labels: Literal["balanced", "iid", "none"]
    order: Literal["shuffled", "sorted"]
    rounding: Literal["nearest", "floor"]
    images: int
    batch: int
    shards: int
    seed: int
    reference: str
    reference_images: int | None
    pr_reference_images: int
    extractor: str
    is_split: int
    pr_k: int = 3
    teacher_precision: Literal["float32", "bfloat16"] = "float32"
    bootstrap: int = 0
    trace_images: int = 0
    clean_fid: bool = False

    def __post_init__(self) -> None:
        for key in ("steps", "images", "batch", "shards", "is_split", "pr_k"):
            if getattr(self, key) <= 0:
                raise BenchError(
                    f"protocol '{self.name}': {key} is {getattr(self, key)}; it must be positive"
                )
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise BenchError(
                f"protocol '{self.name}': bootstrap is {self.bootstrap}; a standard error needs at "
                "least 2 replicates, 0 makes none"
            )
        if not 0 <= self.trace_images <= self.images:
            raise BenchError(
                f"protocol '{self.name}': trace_images is {self.trace_images}; take 0 to "
                f"{self.images}, its number of images"
            )
        if 1000 % self.steps:
            real = len(range(0, 1000, 1000 // self.steps)) if self.steps < 1000 else 1000
            raise BenchError(
                f"protocol '{self.name}': {self.steps} steps do not divide 1000 (the LDM sampler "
                f"would really take {real}); take a divisor of 1000"
            )
        batches = -(-self.images // self.batch)
        if self.shards > batches:
            raise BenchError(
                f"protocol '{self.name}': {self.shards} shards for {batches} batches of "
                f"{self.batch}; a shard holds at least one batch"
            )

    def sampling_fields(self) -> dict[str, Any]:
        """The fields images depend on; the others only say how they are scored.

        The workflow compares a digest of this with the one recorded when a file was made: a trace
        counts only where one is recorded, or sets without would be drawn again for nothing.
        """
        scoring = {"name", "reference", "reference_images", "pr_reference_images"}
        scoring |= {"extractor", "is_split", "pr_k", "bootstrap", "clean_fid"}
        scoring |= set() if self.trace_images else {"trace_images"}
        return {name: value for name, value in self.asdict().items() if name not in scoring}

    def reference_fields(self) -> dict[str, Any]:
        """The fields the reference of a model depends on."""
        names = ("reference", "reference_images", "pr_reference_images", "extractor", "batch")
        return {name: getattr(self, name) for name in (*names, "clean_fid")}

    def asdict(self) -> dict[str, Any]:
        """Every field, for the header of a result."""
        return asdict(self)


@dataclass(frozen=True)
class Recipe:
    """How a student is calibrated and distilled.

    Attributes:
        steps: DDIM steps of a training trajectory; also the length of the step tables.
        trajectories: trajectories trained on, the paper's epochs; updates = steps * trajectories.
        pool: teacher trajectories cached per model, from which each seed draws its own.
        batch: images per trajectory (twice the rows under guidance).
        eta: noise share of the trajectories.
        guidance: guidance scale of teacher and student predictions.
        seed: of the cached trajectories.
        lora_rank: rank r of the low-rank update.
        lora_lr_divisor: a layer's LoRA rate is its mean weight scale over this.
        weight_scale_lr: rate of the weight scales.
        activation_lr: rate of the activation tables.
        weight_decay: decoupled AdamW decay on everything trained.
        calibration: ``single_batch`` copies one scale to all steps (released code); ``per_step``
            searches a scale for every step.
        calibration_images: rows the initial scales are searched on.
        validation_trajectories: held-out trajectories for the noise-prediction error.
        teacher_precision: of the teacher's network along the trajectories; bfloat16 is faster on
            GPUs and changes the targets.
        post_training: of the methods that calibrate instead of training, or None for a recipe
            without it.
    """

    name: str
    steps: int
    trajectories: int
    pool: int
    batch: int
    eta: float
    guidance: float
    seed: int
    lora_rank: int
    lora_lr_divisor: float
    weight_scale_lr: float
    activation_lr: float
    weight_decay: float
    calibration: Literal["single_batch", "per_step"]
    calibration_images: int
    validation_trajectories: int
    teacher_precision: Literal["float32", "bfloat16"] = "float32"
    post_training: PostTraining | None = None

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """From a catalogue's entry."""
        values = dict(entry)
        if "post_training" in values:
            values["post_training"] = PostTraining.read(values["post_training"])
        return cls(name=name, **values)

    def __post_init__(self) -> None:
        for key in (
            "steps",
            "trajectories",
            "pool",
            "batch",
            "lora_rank",
            "calibration_images",
            "validation_trajectories",
        ):
            if getattr(self, key) <= 0:
                raise BenchError(
                    f"recipe '{self.name}': {key} is {getattr(self, key)}; it must be positive"
                )

    @property
    def updates(self) -> int:
        """Optimiser updates in all."""
        return self.steps * self.trajectories

    def trajectory_fields(self) -> dict[str, Any]:
        """The fields that teacher trajectories depend on; others do not redraw them."""
        names = ("steps", "pool", "batch", "eta", "guidance", "seed", "validation_trajectories")
        return {name: getattr(self, name) for name in (*names, "teacher_precision")}

    def of(self, method: MethodSpec) -> Self:
        """What of the recipe a method follows: ``post_training`` is not for trained ones."""
        return self if method.work is not None else replace(self, post_training=None)

    def asdict(self) -> dict[str, Any]:
        """Every field that is set, for the header of a result."""
        found = asdict(self)
        if self.post_training is None:
            del found["post_training"]
        return found


@dataclass(frozen=True)
class ModelSpec:
    """One latent diffusion model.

    Attributes:
        paper_dataset: the paper's data set whose table and figures it stands in.
        source: ``embedded`` (trained or shipped by this project) or ``checkpoint`` (CompVis).
        unet: keys of CompVis' ``unet_config.params``.
        first_stage: ``kind`` vq or kl, ``embed_dim``, ``n_embed`` (vq), ``ddconfig``.
        condition: None, or ``n_classes`` (the last one is the null class) and ``embed_dim``.
        scale_factor: latents are multiplied by it; None takes the checkpoint's own.
        beta_start: of the linear-in-square-root schedule.
        beta_end: of the same.
        ema: whether the checkpoint is sampled with its averaged weights.
        artefact: catalogue name of the checkpoint (source ``checkpoint``).
        data: embedded only, the procedural training set.
        teacher: embedded only, how the model was trained.
        weights_of: embedded only, the model whose shipped weights this variant starts from; they
            agree in everything those weights depend on.
        outliers: outlier channels put into the loaded weights without changing the function:
            ``factor`` of their scale, ``share`` of the channels, ``seed`` of the choice.
    """

    name: str
    title: str
    paper_dataset: Literal["imagenet", "bedrooms", "churches"]
    source: Literal["embedded", "checkpoint"]
    unet: dict[str, Any]
    first_stage: dict[str, Any]
    condition: dict[str, Any] | None
    scale_factor: float | None
    beta_start: float
    beta_end: float
    ema: bool = False
    artefact: str | None = None
    data: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    weights_of: str | None = None
    outliers: dict[str, Any] | None = None

    @property
    def base(self) -> str:
        """The model whose weights it has, and whose operations: itself if it is no variant."""
        return self.weights_of or self.name

    def asdict(self) -> dict[str, Any]:
        """Every field; those of variants only where they are set.

        The workflow compares a digest of this with the one recorded when a file was made: a field
        that most models lack must not make theirs out of date.
        """
        unset = {name for name in ("weights_of", "outliers") if getattr(self, name) is None}
        return {name: value for name, value in asdict(self).items() if name not in unset}


@dataclass(frozen=True)
class ArtefactSpec:
    """One external file.

    Attributes:
        kind: ``checkpoint`` (CompVis .ckpt, bare or zipped), ``reference`` (ADM batch, .npz),
            ``weights`` (state dict, .pth), ``images`` (LSUN database, zipped).
        file: its name under ``artefacts/``.
        urls: mirrors in order of preference.
        sha256: published digest, or None (recorded on first use).
        bytes: published size, or None.
        about_bytes: size to plan with where none is published.
        licence: terms as published.
    """

    name: str
    title: str
    kind: Literal["checkpoint", "reference", "weights", "images"]
    file: str
    urls: tuple[str, ...]
    sha256: str | None
    bytes: int | None
    about_bytes: int
    licence: str
