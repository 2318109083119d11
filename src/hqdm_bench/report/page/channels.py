"""Channel maxima for the outlier explorer, small enough to stand inside a page."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hqdm_bench.catalogue import Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.plots.channel_maxima import read_channel_maxima

__all__ = ["ChannelRecord", "Layer", "Maxima", "read_channels"]

DIGITS = 4  # significant ones of a channel's maximum


@dataclass(frozen=True)
class Maxima:
    """Largest magnitude of every channel of one input at one step.

    Attributes:
        values: by channel.
        median: over the channels.
        ratio: of the largest to the median, as text.
        channel: number of the largest.
    """

    values: tuple[float, ...]
    median: float
    ratio: str
    channel: int


@dataclass(frozen=True)
class Layer:
    """A layer's input, step by step: (as it comes, after the rotation)."""

    name: str
    steps: tuple[tuple[Maxima, Maxima], ...]


@dataclass(frozen=True)
class ChannelRecord:
    """What was recorded of one model.

    Attributes:
        order: k of the block size 2^k.
        steps: (index in the step table, timestep t).
    """

    model: str
    order: int
    steps: tuple[tuple[int, int], ...]
    layers: tuple[Layer, ...]

    def asdict(self) -> dict[str, Any]:
        """For the script of the page."""
        return asdict(self)


def read_channels(root: Path, suite: Suite) -> tuple[ChannelRecord, ...]:
    """Every recorded layer and step; models without a record are left out.

    Raises:
        BenchError: a record is damaged.
    """
    layout, found = Layout(root), []
    for entry in suite.models:
        path = layout.outliers(suite.name, entry.model)
        if not entry.outliers or not path.is_file():
            continue
        _, record = read_arrays(path, [])
        layers: dict[str, list[tuple[Maxima, Maxima]]] = {}
        for panel in read_channel_maxima(path, record["layers"], record["steps"]):
            pair = _maxima(panel.before), _maxima(panel.after)
            layers.setdefault(panel.layer, []).append(pair)
        found.append(
            ChannelRecord(
                entry.model,
                record["order"],
                tuple(zip(record["steps"], record["timesteps"], strict=True)),
                tuple(Layer(name, tuple(steps)) for name, steps in layers.items()),
            )
        )
    return tuple(found)


def _maxima(values: npt.NDArray[np.float32]) -> Maxima:
    median = float(np.median(values))
    ratio = f"{float(values.max()) / median:.1f}" if median > 0 else "∞"
    return Maxima(
        tuple(float(f"{value:.{DIGITS}g}") for value in values.tolist()),
        float(f"{median:.{DIGITS}g}"),
        ratio,
        int(values.argmax()),
    )
