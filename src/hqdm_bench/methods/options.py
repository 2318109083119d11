"""Options of a method: frozen dataclasses whose every field says what it may be."""

from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.stages import Calibrate, Distill, Stage
from hqdm_bench.quantization import POLICY_SAYS, check_policy

__all__ = ["MethodOptions", "QatOptions", "text_option"]


def text_option(default: str, check: Callable[[str], str], says: str) -> Any:
    """A field of free text for an options class.

    Args:
        default: value of ``as_code``.
        check: returns the text, or raises a BenchError that says what is wrong with it.
        says: what may be written, for the schema.
    """
    return field(default=default, metadata={"check": check, "says": says})


@dataclass(frozen=True)
class MethodOptions:
    """Base of all options.

    Every field of a subclass is a ``Literal``, or text made by `text_option`, so that values can be
    checked and a JSON schema written. The defaults are what the authors' released code does
    (``as_code``).
    """

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """Named option sets; ``as_code`` always exists and equals the defaults."""
        return {"as_code": cls()}

    @classmethod
    def read(cls, given: Mapping[str, Any], method: str) -> Self:
        """Check and complete options from a catalogue.

        Args:
            given: overrides; the key ``preset`` (default ``as_code``) says of what.
            method: name for the error messages.

        Raises:
            BenchError: an unknown key or preset, or a value that is not allowed.
        """
        overrides = dict(given)
        preset = overrides.pop("preset", "as_code")
        presets = cls.presets()
        if preset not in presets:
            raise BenchError(
                f"method '{method}': preset is {preset!r}; allowed: {', '.join(presets)}"
            )
        known = {entry.name: entry for entry in fields(cls)}
        for key, value in overrides.items():
            if key not in known:
                names = ", ".join(known) or "none"
                raise BenchError(f"method '{method}': unknown option '{key}'; allowed: {names}")
            cls._check(known[key], value, method)
        return cls(**{**asdict(presets[preset]), **overrides})

    @classmethod
    def _check(cls, entry: "Field[Any]", value: Any, method: str) -> None:
        choices = cls.allowed().get(entry.name)
        place = f"method '{method}': option '{entry.name}'"
        if choices is None:
            if not isinstance(value, str):
                raise BenchError(f"{place} is {value!r}; it takes text: {entry.metadata['says']}")
            try:
                entry.metadata["check"](value)
            except BenchError as error:
                raise BenchError(f"{place}: {error}") from None
        elif not any(value == choice and type(value) is type(choice) for choice in choices):
            listed = ", ".join(repr(choice) for choice in choices)
            raise BenchError(f"{place} is {value!r}; allowed: {listed}")

    @classmethod
    def allowed(cls) -> dict[str, tuple[Any, ...]]:
        """Allowed values of every option that is a choice."""
        hints = get_type_hints(cls)
        kinds = {entry.name: hints[entry.name] for entry in fields(cls)}
        return {name: get_args(kind) for name, kind in kinds.items() if get_origin(kind) is Literal}

    @classmethod
    def schema(cls, method: str) -> dict[str, Any]:
        """JSON schema (draft 7) of a catalogue entry's ``options``.

        Args:
            method: name the schema is titled with.
        """
        choices = cls.allowed()
        properties: dict[str, Any] = {
            "preset": {"enum": sorted(cls.presets()), "default": "as_code"}
        }
        for entry in fields(cls):
            if entry.name in choices:
                allowed: dict[str, Any] = {"enum": list(choices[entry.name])}
            else:
                allowed = {"type": "string", "description": entry.metadata["says"]}
            properties[entry.name] = {**allowed, "default": entry.default}
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": f"options of method {method}",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }

    def stages(self) -> tuple[Stage, ...]:
        """What happens to a student once it is built, in order; nothing by default."""
        return ()

    @property
    def post_training(self) -> bool:
        """Whether calibration is drawn from the sampler the student is for.

        Otherwise it is drawn from the trajectories that students are trained on.
        """
        return False

    @property
    def calibration_images(self) -> int:
        """Images whose inputs at every timestep a post-training method calibrates on."""
        return 256

    @property
    def table_timesteps(self) -> int | None:
        """Most rows of a post-training method's tables; None for all timesteps of the sampler."""
        return None

    @property
    def full_weight_share(self) -> float:
        """Rate of weights that are trained in full precision, over that of low-rank factors.

        No recipe has a rate for them, and the update of a product of factors is smaller than that
        of a factor.
        """
        return 0.1

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, for the header of a result."""
        return asdict(self)


@dataclass(frozen=True)
class QatOptions(MethodOptions):
    """Options that every QALoRA-type student has.

    Attributes:
        policy: which layers are quantized, and how: ``official`` keeps skip, op and Conv1d layers
            in full precision and the first three and the last layer at static 8 bits; ``full``
            quantizes every layer to the low bits; ``ptqd``, ``tfmq``, ``dmq`` and ``quest`` are
            those of these methods' codes; rules on names may follow (see `roles`).
        base: what the low-rank update is added to: the ``dequantized`` frozen integer codes times
            the trained scale (released code), or the ``full_precision`` weights W0 (text of both
            papers).
        weight_init: range search behind the initial weight scales.
        weight_scales: one ``shared`` by all steps (released code), or ``per_step`` (HQ-DM's text).
        weight_scale_updates: the released code holds the weight scale in two parameters that share
            one storage (quantizer and dequantizer), each with its own Adam state, so it moves
            ``twice`` an update; ``once`` trains one parameter with the total derivative.
        scale_table: the S step sizes of a layer's input are one ``vector`` (released code), of
            which Adam also moves the rows without a gradient, or ``separate`` parameters.
        scale_aware: EfficientDM's scale-aware update as a ``learning_rate`` of each layer (released
            code) or as a factor on the ``gradient`` (its text), which Adam cancels.
        loss: ``guided_sum``, the summed squared difference of the guided predictions (released
            code), or ``eps_mean``, the mean over the unguided ones (text of both papers).
        steps: row of the tables at a timestep they were not trained at: ``pick`` takes the nearest
            (for every n-th timestep, the released code's every n-th entry), ``interpolate`` goes
            linearly between neighbours (EfficientDM's text), ``by_timestep`` refuses.
    """

    policy: str = text_option("official", check_policy, POLICY_SAYS)
    base: Literal["dequantized", "full_precision"] = "dequantized"
    weight_init: Literal["max", "mse"] = "max"
    weight_scales: Literal["shared", "per_step"] = "shared"
    weight_scale_updates: Literal["twice", "once"] = "twice"
    scale_table: Literal["vector", "separate"] = "vector"
    scale_aware: Literal["learning_rate", "gradient"] = "learning_rate"
    loss: Literal["guided_sum", "eps_mean"] = "guided_sum"
    steps: Literal["pick", "interpolate", "by_timestep"] = "pick"

    def stages(self) -> tuple[Stage, ...]:
        """Ranges from the trajectories, then distillation along them."""
        return Calibrate(), Distill()
