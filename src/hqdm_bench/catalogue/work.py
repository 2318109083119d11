"""Work of a suite in units: rows through a network, updates, decoded images, features."""

from dataclasses import dataclass

from hqdm_bench.catalogue.costs import Costs, ExtractorOperations, Operations, Unit
from hqdm_bench.catalogue.method_spec import FittingWork, MethodSpec
from hqdm_bench.catalogue.post_training import PostTraining
from hqdm_bench.catalogue.specs import ModelSpec, Protocol, Recipe

__all__ = [
    "Work",
    "feature_bytes",
    "outlier_work",
    "reference_bytes",
    "reference_work",
    "rows_per_latent",
    "sample_bytes",
    "sampling_work",
    "scoring_work",
    "student_bytes",
    "teacher_bytes",
    "training_work",
    "trajectory_bytes",
    "trajectory_work",
]

FLOAT, DOUBLE, HALF = 4, 8, 2


@dataclass(frozen=True)
class Work:
    """An amount of one unit.

    Attributes:
        subject: model whose operations are done (a variant's are its base's), or extractor.
        unit: what is done, see `Unit`.
        rows: latents through the UNet (twice as many under guidance), or images.
        passes: calls of the network; a pass takes a batch.
        rank: of the low-rank updates; updates only.
    """

    subject: str
    unit: Unit
    rows: int
    passes: int
    rank: int = 0

    def macs(self, costs: Costs) -> int:
        """Multiply-accumulates, without rotations and quantizers.

        An update is a forward pass, the gradients of activations and those of effective weights,
        three passes' worth; merging the low-rank factors and its two gradients come on top.
        """
        if self.unit == "features":
            return self.rows * costs.extractors[self.subject].macs
        if self.unit == "start":
            return 0
        counted = costs.models[self.subject]
        if self.unit == "decode":
            return self.rows * counted.decode_macs
        if self.unit == "update":
            merging = self.rank * counted.low_bit_weights
            return 3 * (self.rows * counted.unet_macs + self.passes * merging)
        return self.rows * counted.unet_macs

    def launches(self, costs: Costs) -> int:
        """Operations launched by the UNet's calls; few elsewhere, and not counted."""
        if self.unit in ("features", "decode", "start"):
            return 0
        counted = costs.models[self.subject]
        calls = {"student": counted.student_calls, "update": counted.update_calls}
        return self.passes * calls.get(self.unit, counted.teacher_calls)


def rows_per_latent(spec: ModelSpec, guidance: float) -> int:
    """Rows one latent takes: two under classifier-free guidance, else one."""
    return 2 if spec.condition and guidance != 1 else 1


def trajectory_work(spec: ModelSpec, recipe: Recipe) -> list[Work]:
    """Rolling out the teacher."""
    passes = (recipe.pool + recipe.validation_trajectories) * recipe.steps
    return [
        Work(spec.base, _teacher(recipe.teacher_precision), passes * _batch(spec, recipe), passes)
    ]


def outlier_work(spec: ModelSpec, recipe: Recipe, steps: int) -> list[Work]:
    """The teacher on the held-out trajectories, at ``steps`` steps."""
    passes = recipe.validation_trajectories * steps
    return [Work(spec.base, "teacher", passes * _batch(spec, recipe), passes)]


def training_work(spec: ModelSpec, recipe: Recipe, method: MethodSpec) -> list[Work]:
    """Calibration, distillation and validation of one student; range searches are not counted."""
    if method.work is not None and recipe.post_training is not None:
        return _fitting_work(spec, recipe, recipe.post_training, method.work)
    calibrated = recipe.steps if recipe.calibration == "per_step" else 1
    validated = recipe.validation_trajectories * _batch(spec, recipe) * recipe.steps
    rows = calibrated * recipe.calibration_images + validated
    batch = _batch(spec, recipe)
    return [
        Work(spec.base, "update", recipe.updates * batch, recipe.updates, recipe.lora_rank),
        Work(spec.base, "student", rows, calibrated + recipe.steps),
    ]


def _fitting_work(
    spec: ModelSpec, recipe: Recipe, sampler: PostTraining, work: FittingWork
) -> list[Work]:
    """Stages of a post-training method; collecting what the blocks are fitted to is not counted."""
    scale, two = sampler.scale, rows_per_latent(spec, sampler.guidance)
    rows = round(work.rows * scale.updates)
    drawn = round(work.images * scale.data) * sampler.steps * two
    paths = round(work.paths * scale.data) * sampler.steps * two
    validated = recipe.validation_trajectories * _batch(spec, recipe) * recipe.steps
    return [
        Work(spec.base, "update", rows, rows // 32),
        Work(spec.base, "teacher", drawn + paths, (drawn + paths) // 16),
        Work(spec.base, "student", drawn + paths + validated, (drawn + paths) // 16),
    ]


def sampling_work(spec: ModelSpec, protocol: Protocol, student: bool) -> list[Work]:
    """Drawing and decoding one image set."""
    unit: Unit = "student" if student else _teacher(protocol.teacher_precision)
    rows = protocol.images * protocol.steps * rows_per_latent(spec, protocol.guidance)
    batches = -(-protocol.images // protocol.batch)
    return [
        Work(spec.base, unit, rows, batches * protocol.steps),
        Work(spec.base, "decode", protocol.images, batches),
    ]


def scoring_work(protocol: Protocol) -> list[Work]:
    """Features of one image set."""
    batches = -(-protocol.images // protocol.batch)
    return [Work(protocol.extractor, "features", protocol.images, batches)]


def reference_work(protocol: Protocol) -> list[Work]:
    """Features of the real images; a published batch brings the moments of the others."""
    images = max(protocol.reference_images or 0, protocol.pr_reference_images)
    return [Work(protocol.extractor, "features", images, -(-images // protocol.batch))]


def _batch(spec: ModelSpec, recipe: Recipe) -> int:
    return recipe.batch * rows_per_latent(spec, recipe.guidance)


def _teacher(precision: str) -> Unit:
    return "teacher-bfloat16" if precision == "bfloat16" else "teacher"


def _latent_values(spec: ModelSpec) -> int:
    return int(spec.unet["in_channels"] * spec.unet["image_size"] ** 2)


def sample_bytes(spec: ModelSpec, protocol: Protocol) -> int:
    """Shards of one image set: pixels, latents, label and number; latents of traced images."""
    pixels = 3 * int(spec.first_stage["ddconfig"]["resolution"]) ** 2
    latents = FLOAT * _latent_values(spec)
    trace = protocol.trace_images * protocol.steps * latents
    return protocol.images * (pixels + latents + 2 * DOUBLE) + trace


def feature_bytes(protocol: Protocol, extractor: ExtractorOperations) -> int:
    """Stored features of one image set; pooled ones twice where clean-fid is asked for."""
    widths = extractor.pool * (1 + protocol.clean_fid) + extractor.spatial + extractor.logits
    return protocol.images * (FLOAT * widths + DOUBLE)


def reference_bytes(protocol: Protocol, extractor: ExtractorOperations) -> int:
    """Moments of both feature kinds, and the features for precision and recall."""
    kinds = [extractor.pool, extractor.spatial] + [extractor.pool] * protocol.clean_fid
    moments = sum(width * (width + 1) for width in kinds)
    return DOUBLE * moments + FLOAT * protocol.pr_reference_images * extractor.pool


def trajectory_bytes(spec: ModelSpec, recipe: Recipe) -> int:
    """Latents of every step, and the predictions there: two under guidance."""
    latents = (recipe.pool + recipe.validation_trajectories) * recipe.steps * recipe.batch
    kept = 1 + rows_per_latent(spec, recipe.guidance)
    return kept * FLOAT * latents * _latent_values(spec)


def teacher_bytes(spec: ModelSpec, counted: Operations) -> int:
    """A converted checkpoint in float32; embedded models are shipped in half precision."""
    return counted.parameters * (HALF if spec.source == "embedded" else FLOAT)


def student_bytes(counted: Operations, method: MethodSpec, recipe: Recipe) -> int:
    """Codes, or float weights where the method keeps them, and low-rank factors."""
    base = FLOAT if _keeps_float_weights(method) else 1
    low_rank = 0 if method.work else FLOAT * recipe.lora_rank * counted.lora_per_rank
    return base * counted.low_bit_weights + counted.static_weights + low_rank


def _keeps_float_weights(method: MethodSpec) -> bool:
    """Whether the student's base is the float weight, by option or preset."""
    default = "full_precision" if method.options.get("preset") == "as_paper" else "dequantized"
    return str(method.options.get("base", default)) == "full_precision"
