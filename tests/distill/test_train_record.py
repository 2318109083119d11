"""What training.json records is what the reports read."""

import json

import pytest

from hqdm_bench.catalogue import Bits, Cell, MethodSpec, Recipe
from hqdm_bench.distill import Trajectories, train_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.report import CellResult
from hqdm_bench.report.granularity import granularity
from hqdm_bench.report.method_cost import method_cost
from hqdm_bench.report.samples import REPLICATES, sample


def test_a_record_is_read_back_as_grids_costs_and_replicates(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    method = MethodSpec("hqdm", "hqdm", "hqdm", {})
    trained = train_student(method, teacher, trajectories, Bits(4, 4), recipe, 0)
    record = json.loads(json.dumps(trained.summary()))
    cell = Cell("suite", "model", "hqdm", Bits(4, 4), 0, "protocol")
    spent = json.loads(json.dumps(trained.cost.of_the_machine()))
    assert not spent.keys() & record["cost"].keys()
    record |= {"method": {"implementation": "hqdm"}, "cost": record["cost"] | spent}
    result = CellResult(cell, None, record, None)

    (draws,) = sample([result], "noise_error").values()
    assert draws.value == trained.noise_error
    assert draws.replicates is not None
    assert draws.replicates.shape == (REPLICATES,)
    errors = [e / n for e, n in zip(trained.errors.errors, trained.errors.energies, strict=True)]
    assert min(errors) <= draws.replicates.min() <= draws.replicates.max() <= max(errors)
    assert draws.replicates.mean() == pytest.approx(draws.value, rel=0.2)

    cost = method_cost([result])
    assert cost is not None
    assert list(cost.seconds) == ["1 calibrate", "2 distill"]
    assert cost.samples == trained.cost.samples > 0
    assert cost.extra_parameters == trained.cost.extra_parameters > 0
    assert cost.cpu_seconds is not None
    assert cost.peak_memory_mb is not None
    assert str(granularity([result])) == "channel; tensor, per step"
