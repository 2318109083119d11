"""What exists and what a suite selects from it: validated, frozen, free of torch."""

from hqdm_bench.catalogue.bits import Bits
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.catalogue.loader import Catalogue, load_catalogue
from hqdm_bench.catalogue.method_spec import FittingWork, MethodSpec
from hqdm_bench.catalogue.post_training import PostTraining, Scale
from hqdm_bench.catalogue.specs import ArtefactSpec, ModelSpec, Protocol, Recipe
from hqdm_bench.catalogue.suites import Baseline, Cell, Comparison, Suite, SuiteModel

__all__ = [
    "ArtefactSpec",
    "Baseline",
    "Bits",
    "Catalogue",
    "Cell",
    "Comparison",
    "FittingWork",
    "Layout",
    "MethodSpec",
    "ModelSpec",
    "PostTraining",
    "Protocol",
    "Recipe",
    "Scale",
    "Suite",
    "SuiteModel",
    "load_catalogue",
]
