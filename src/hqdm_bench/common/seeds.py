"""Named random streams: every random thing says who it is for."""

import torch

from hqdm_bench.common.streams import derive_seed

__all__ = ["derive_seed", "generator"]


def generator(*parts: str | int) -> torch.Generator:
    """CPU generator of a named stream; CPU so that every device draws the same numbers."""
    return torch.Generator().manual_seed(derive_seed(*parts))
