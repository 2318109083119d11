"""The part of a diffusion network that depends on nothing but the timestep."""

from dataclasses import dataclass

from torch import nn

__all__ = ["TEMPORAL", "TemporalBlock", "find_temporal_block"]

# Own names of the embedding of the timestep and of its projection in each residual block: those of
# CompVis, then those of diffusers.
NAMES = (("time_embed", "emb_layers"), ("time_embedding", "time_emb_proj"))
TEMPORAL = frozenset(name for pair in NAMES for name in pair)


@dataclass(frozen=True)
class TemporalBlock:
    """TFMQ-DM's temporal information block.

    Attributes:
        embedding: dotted name of what embeds the timestep.
        projections: dotted names of what takes this embedding in the residual blocks, in module
            order.
    """

    embedding: str
    projections: tuple[str, ...]

    def holds(self, name: str) -> bool:
        """Whether a module is in it, by its dotted name."""
        parts = (self.embedding, *self.projections)
        return name in parts or name.startswith(tuple(f"{part}." for part in parts))


def find_temporal_block(network: nn.Module) -> TemporalBlock | None:
    """The block of a network, by the names of its parts; None if it has none, or several.

    Args:
        network: whose layers may already be quantized ones.
    """
    names = [name for name, _ in network.named_modules()]
    for embedding, projection in NAMES:
        heads = [name for name in names if _own(name) == embedding]
        projections = tuple(name for name in names if _own(name) == projection)
        if len(heads) == 1 and projections:
            return TemporalBlock(heads[0], projections)
    return None


def _own(name: str) -> str:
    return name.rpartition(".")[2]
