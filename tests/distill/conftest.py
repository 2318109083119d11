import pytest

from hqdm_bench.catalogue import Recipe
from hqdm_bench.distill import Trajectories, generate
from hqdm_bench.models import LatentDiffusion


@pytest.fixture(scope="session")
def trajectories(shared_toy: LatentDiffusion, recipe: Recipe) -> Trajectories:
    return generate(shared_toy, recipe)
