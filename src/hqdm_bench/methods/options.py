"""Options of a method: frozen dataclasses whose every field names its allowed values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args, get_type_hints

from hqdm_bench.common.errors import BenchError

__all__ = ["MethodOptions", "QatOptions"]


@dataclass(frozen=True)
class MethodOptions:
    """Base of all options; every field of a subclass is a ``Literal``, so values can be checked.

    The defaults of a subclass are what the authors' released code does (``as_code``).
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
        allowed = cls.allowed()
        for key, value in overrides.items():
            if key not in allowed:
                known = ", ".join(allowed) or "none"
                raise BenchError(f"method '{method}': unknown option '{key}'; allowed: {known}")
            if not any(value == choice and type(value) is type(choice) for choice in allowed[key]):
                choices = ", ".join(repr(choice) for choice in allowed[key])
                raise BenchError(
                    f"method '{method}': option '{key}' is {value!r}; allowed: {choices}"
                )
        return cls(**{**asdict(presets[preset]), **overrides})

    @classmethod
    def allowed(cls) -> dict[str, tuple[Any, ...]]:
        """Allowed values of every option."""
        hints = get_type_hints(cls)
        return {field.name: get_args(hints[field.name]) for field in fields(cls)}

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, for the header of a result."""
        return asdict(self)


@dataclass(frozen=True)
class QatOptions(MethodOptions):
    """Options that every QALoRA-type student has.

    Attributes:
        policy: ``official`` keeps skip, op and Conv1d layers in full precision and the first three
            and the last layer at static 8 bits; ``full`` quantizes every layer to the low bits.
        base: what the low-rank update is added to: the frozen integer ``codes`` times the trained
            scale (released code), or the ``float`` weights W0 (text of both papers).
        weight_init: range search behind the initial weight scales.
        weight_scale_updates: the released code holds the weight scale in two parameters that share
            one storage (quantizer and dequantizer), each with its own Adam state, so it moves
            ``twice`` an update; ``once`` trains one parameter with the total derivative.
    """

    policy: Literal["official", "full"] = "official"
    base: Literal["codes", "float"] = "codes"
    weight_init: Literal["max", "mse"] = "max"
    weight_scale_updates: Literal["twice", "once"] = "twice"
