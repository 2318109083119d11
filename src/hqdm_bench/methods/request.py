"""What a student is asked to be, besides its method's options."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Bits

__all__ = ["Rates", "Request"]


@dataclass(frozen=True)
class Request:
    """Everything a builder is told besides the module and the options.

    Attributes:
        bits: of the low-bit layers.
        timesteps: of the step tables, strictly ascending; one entry makes tables without steps.
        rank: of low-rank updates.
        seed: of everything random in the student; each layer draws from its own stream.
        timestep_argument: name of the module's argument that holds the timestep, or None if the
            tables have no steps.
    """

    bits: Bits
    timesteps: tuple[int, ...]
    rank: int = 32
    seed: int = 0
    timestep_argument: str | None = None

    @property
    def steps(self) -> int:
        """Rows S of the step tables."""
        return len(self.timesteps)


@dataclass(frozen=True)
class Rates:
    """Learning rates of a student's parameters; the defaults are those of the released scripts.

    Attributes:
        lora_lr_divisor: a layer's low-rank factors get its mean weight scale over this.
        weight_scale_lr: of the weight scales.
        activation_lr: of the activation tables.
        weight_decay: decoupled decay of all of them.
    """

    lora_lr_divisor: float = 2500
    weight_scale_lr: float = 1e-6
    activation_lr: float = 5e-4
    weight_decay: float = 0.01
