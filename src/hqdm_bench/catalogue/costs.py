"""What a unit of work costs: counted for every model, measured on some machines, assumed for GPUs.

Everything is read from ``config/costs``; nothing is counted or timed here: a plan starts at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from hqdm_bench.catalogue.schema import read_yaml
from hqdm_bench.catalogue.specs import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest, read_json

__all__ = [
    "Costs",
    "ExtractorOperations",
    "Gpu",
    "Machine",
    "Operations",
    "Unit",
    "architecture_of",
    "load_costs",
]

Unit = Literal["teacher", "teacher-bfloat16", "student", "update", "decode", "features", "start"]
Range = tuple[float, float]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Operations:
    """Counts of one model (benchmarks/count_operations.py).

    Attributes:
        architecture: of the model they were counted on, `architecture_of`.
        unet_macs: multiply-accumulates of the UNet for one latent, attention products included.
        decode_macs: of the first stage for one image.
        parameters: of UNet, first stage and embedder.
        low_bit_weights: weights of the layers the official policy trains.
        static_weights: weights of the layers it keeps at 8 bits.
        lora_per_rank: low-rank parameters at rank 1.
        teacher_calls: operations a forward pass launches, whatever the batch.
        student_calls: of a frozen student's forward pass.
        update_calls: of a training update, optimiser included.
    """

    architecture: str
    unet_macs: int
    decode_macs: int
    parameters: int
    low_bit_weights: int
    static_weights: int
    lora_per_rank: int
    teacher_calls: int
    student_calls: int
    update_calls: int


@dataclass(frozen=True)
class ExtractorOperations:
    """Counts of a feature extractor for one image, and the widths of its features."""

    macs: int
    parameters: int
    pool: int
    spatial: int
    logits: int


@dataclass(frozen=True)
class Machine:
    """Seconds of units of work, measured by benchmarks/unit_costs.py.

    Attributes:
        device: the GPU, or the CPU, as it names itself.
        kind: ``cuda``: elapsed seconds of one GPU; ``cpu``: CPU seconds of one thread.
        note: how it was measured.
        seconds: by (model or extractor, unit), of one row or image; ``("", "start")`` is what a job
            spends before its work.
    """

    device: str
    kind: Literal["cpu", "cuda"]
    torch: str
    note: str
    seconds: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Gpu:
    """A GPU that was not measured: published peaks times assumed shares of them.

    Attributes:
        rates: sustained multiply-accumulates a second, lowest and highest assumed, by precision.
        source: of the peaks.
    """

    name: str
    rates: dict[str, Range]
    source: str


@dataclass(frozen=True)
class Costs:
    """Everything in ``config/costs``.

    Attributes:
        launch_seconds: assumed seconds to launch one operation, lowest and highest.
        student_factor: assumed time of a student's products and quantizers over that of the
            products alone, lowest and highest.
    """

    models: dict[str, Operations]
    extractors: dict[str, ExtractorOperations]
    machines: tuple[Machine, ...]
    gpus: tuple[Gpu, ...]
    launch_seconds: Range
    student_factor: Range

    def operations(self, spec: ModelSpec) -> Operations:
        """Counts of a model; a variant has those of its base.

        Raises:
            BenchError: it was not counted, or was before its architecture changed.
        """
        counted = self.models.get(spec.base)
        if counted is None or counted.architecture != architecture_of(spec):
            raise BenchError(
                f"config/costs/operations.json does not hold model '{spec.name}' as "
                "config/models.yaml describes it; `python benchmarks/count_operations.py` counts it"
            )
        return counted

    def seconds(self, machine: Machine, subject: str, unit: Unit) -> float | None:
        """What a unit takes on a machine, measured on any model of the same architecture."""
        counted = self.models.get(subject)
        alike = [name for name, other in self.models.items() if other == counted]
        found = (machine.seconds.get((name, unit)) for name in (subject, *alike))
        return next((seconds for seconds in found if seconds is not None), None)


def architecture_of(spec: ModelSpec) -> str:
    """Digest of what a model's counts depend on."""
    return digest([spec.unet, spec.first_stage, spec.condition])


def load_costs(root: Path) -> Costs:
    """Read ``root/config/costs``.

    Raises:
        BenchError: a file is missing or of another form.
    """
    folder = root / "config" / "costs"
    path = folder / "operations.json"
    counted = read_json(path)
    assumed = read_yaml(folder / "gpus.yaml", "costs")
    shares = assumed["sustained_share"]
    return Costs(
        models=_entries(path, counted, "models", Operations),
        extractors=_entries(path, counted, "extractors", ExtractorOperations),
        machines=tuple(_machine(file) for file in sorted((folder / "machines").glob("*.json"))),
        gpus=tuple(_gpu(entry, shares) for entry in assumed["gpus"]),
        launch_seconds=_pair(assumed["launch_microseconds"], 1e-6),
        student_factor=_pair(assumed["student_factor"]),
    )


def _entries(
    path: Path, counted: Mapping[str, Any], key: str, kind: type[Entry]
) -> dict[str, Entry]:
    try:
        return {name: kind(**entry) for name, entry in counted[key].items()}
    except (KeyError, TypeError, AttributeError):
        raise BenchError(
            f"{path}: '{key}' is not as this version writes it; "
            "`python benchmarks/count_operations.py` writes it again"
        ) from None


def _gpu(entry: Mapping[str, Any], shares: Mapping[str, list[float]]) -> Gpu:
    # A published TFLOP is two operations, a multiply-accumulate one.
    rates = {
        precision: _pair(shares[precision], peak * 1e12 / 2)
        for precision, peak in entry["peak_tflops"].items()
    }
    return Gpu(entry["name"], rates, entry["source"])


def _pair(values: list[float], factor: float = 1.0) -> Range:
    low, high = values
    return low * factor, high * factor


def _machine(path: Path) -> Machine:
    value = read_json(path)
    try:
        seconds = {
            (entry.get("model", ""), entry["unit"]): float(entry["seconds"])
            for entry in value["entries"]
        }
        machine = Machine(value["device"], value["kind"], value["torch"], value["note"], seconds)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BenchError(f"{path}: {_AGAIN}") from None
    unknown = {unit for _, unit in seconds} - set(get_args(Unit))
    if unknown or machine.kind not in ("cpu", "cuda") or min(seconds.values(), default=0) <= 0:
        raise BenchError(f"{path}: {_AGAIN}")
    return machine


_AGAIN = (
    "not a list of positive unit costs as this version writes it; "
    "`python benchmarks/unit_costs.py` writes it again"
)
