"""The stage that QuEST adds: a few float weights and step sizes trained on the outputs."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from hqdm_bench.catalogue import Scale
from hqdm_bench.methods.stages import Stage

__all__ = ["EMBEDDING", "FineTune", "attention_tuning", "temporal_tuning"]

Part = Literal["temporal", "attention"]

# What the layers are called by CompVis and by diffusers.
WEIGHTS: dict[Part, tuple[str, ...]] = {
    "temporal": ("*emb_layers.*", "*time_emb_proj*"),
    "attention": ("*ff.net.*", "*to_q*", "*attn1.to_k*", "*attn1.to_v*", "*qkv*"),
}
EMBEDDING = ("*emb*",)  # the embedding itself and its projections


@dataclass(frozen=True)
class FineTune(Stage):
    """Fine-tune the layers of one part, and step sizes, timestep after timestep.

    The loss is the mean squared error of the network's output against full precision and that of
    every layer of the part, added up.

    Attributes:
        part: ``temporal``: the projections of the time embedding, with the step sizes of their
            inputs; ``attention``: feed-forward layers, queries, and what attention to itself makes
            keys and values of, with all step sizes outside the time embedding.
        epochs: passes over the samples of a timestep.
        samples: drawn at a timestep.
        batch: samples an update.
        weight_rate: of Adam, for weights and biases.
        step_rate: of Adam, for step sizes.
        visits: ``once`` a timestep, all epochs on the same samples, or every ``epoch``, with newly
            drawn ones. Adam starts afresh for the step sizes at every visit, as released.
        local: whether the errors of the layers count.
        repeat_output: count the error of the output once for every layer, as released.
        timesteps: calls at this many timesteps are used, evenly chosen; all if there are fewer.
    """

    part: Part
    epochs: int
    samples: int
    batch: int
    weight_rate: float
    step_rate: float
    visits: Literal["once", "epoch"]
    local: bool
    repeat_output: bool
    timesteps: int = 20

    @property
    def weights(self) -> tuple[str, ...]:
        """Shell patterns of the layers whose weights are trained."""
        return WEIGHTS[self.part]

    @property
    def name(self) -> str:
        """Shown in messages and in what a run took."""
        return f"fine tune {self.part}"

    def scaled(self, scale: Scale) -> Self:
        """Fewer updates, at least one a visit, on fewer samples, weights at another rate.

        The rate of step sizes stays: Adam starts afresh for them at every visit, and its first
        updates move them by the rate itself.
        """
        samples = max(self.batch, round(self.samples * scale.data))
        updates = self.epochs * (self.samples // self.batch) * scale.updates
        return replace(
            self,
            epochs=max(1, round(updates / -(-samples // self.batch))),
            samples=samples,
            weight_rate=self.weight_rate * scale.rates,
        )


def temporal_tuning(epochs: int = 300, *, repeat_output: bool = True) -> FineTune:
    """As released for ImageNet; LSUN has 200 epochs."""
    return FineTune(
        "temporal",
        epochs=epochs,
        samples=8,
        batch=2,
        weight_rate=1e-5,
        step_rate=1e-5,
        visits="once",
        local=True,
        repeat_output=repeat_output,
    )


def attention_tuning(*, local: bool = False, repeat_output: bool = True) -> FineTune:
    """As released, where the line with the errors of the layers is commented out."""
    return FineTune(
        "attention",
        epochs=20,
        samples=64,
        batch=4,
        weight_rate=1e-5,
        step_rate=1e-4,
        visits="epoch",
        local=local,
        repeat_output=repeat_output,
    )
