"""Measuring images and layers: features, distances, scores, paired errors, channel maxima.

The metrics on (n, d) feature tensors, loaded with torch when they are first asked for:

    frechet_distance(generated, reference)
    inception_score(logits, split_size=5000)
    precision_recall(generated, reference, k=3)
    kernel_distance(generated, reference)

Everything else is imported by the name of its module; `evaluate.intervals` is used by tables and
must not pull in torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqdm_bench.evaluate.class_scores import inception_score
    from hqdm_bench.evaluate.frechet import frechet_distance
    from hqdm_bench.evaluate.frechet_bias import fid_infinity
    from hqdm_bench.evaluate.kernel import kernel_distance
    from hqdm_bench.evaluate.neighbours import precision_recall

__all__ = [
    "fid_infinity",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "precision_recall",
]

# No module may bear the name of a function: importing it would put it in the function's place.
_PLACES = {
    "fid_infinity": "frechet_bias",
    "frechet_distance": "frechet",
    "inception_score": "class_scores",
    "kernel_distance": "kernel",
    "precision_recall": "neighbours",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
