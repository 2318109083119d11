import copy

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import StepIndex


def test_rows_follow_the_timestep():
    step = StepIndex(range(1, 1000, 50))
    assert len(step) == 20
    for t, row in ((951, 19), (1, 0), (351, 7), (351, 7)):
        step.set(t)
        assert step.index == row


def test_errors_say_what_is_wrong():
    step = StepIndex([1, 501])
    with pytest.raises(BenchError, match="no timestep is set"):
        _ = step.index
    with pytest.raises(
        BenchError, match=r"timestep 2 is not in this student's table of 2 steps \(1 to 501"
    ):
        step.set(2)
    for timesteps in ([], [3, 1], [1, 1]):
        with pytest.raises(BenchError, match="strictly ascending"):
            StepIndex(timesteps)


def test_a_copy_of_a_student_has_one_holder_of_its_own():
    step = StepIndex([1, 501])
    layers = copy.deepcopy([{"step": step}, {"step": step}, step])
    assert layers[0]["step"] is layers[1]["step"] is layers[2]
    assert layers[2] is not step
    layers[2].set(501)
    assert layers[0]["step"].index == 1
