"""Files that come from outside a run: here, the weights shipped inside the package."""

from hqdm_bench.artefacts.embedded import embedded_names, embedded_weights

__all__ = ["embedded_names", "embedded_weights"]
