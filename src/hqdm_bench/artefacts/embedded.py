"""Weights shipped inside the package, so that a first run need not train its teachers.

Each file says in its header which recipe made it. A file whose recipe is not the current one is
refused: numbers must come from the models the catalogue describes.
"""

from importlib import resources
from pathlib import Path

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata

__all__ = ["embedded_names", "embedded_weights"]


def _folder() -> Path:
    return Path(str(resources.files("hqdm_bench.artefacts"))) / "embedded"


def embedded_names() -> list[str]:
    """Names of the shipped weights, models and extractors."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def embedded_weights(name: str, recipe_digest: str) -> Path:
    """The shipped weights of a model or extractor.

    Args:
        name: catalogue name, for example ``mini-imagenet``.
        recipe_digest: digest of the recipe the catalogue describes now.

    Raises:
        BenchError: none are shipped, or they were made by another recipe.
    """
    path = _folder() / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(embedded_names())
        raise BenchError(
            f"no weights of '{name}' are shipped (there are: {shipped}); train them with "
            "--teachers trained (snakemake: --config teachers=trained)"
        )
    recorded = read_metadata(path).get("recipe_digest")
    if recorded != recipe_digest:
        raise BenchError(
            f"the shipped weights of '{name}' were made by recipe {recorded}, the catalogue now "
            f"describes {recipe_digest}; train them with --teachers trained (snakemake: --config "
            "teachers=trained), or take the change to config/models.yaml back"
        )
    return path
