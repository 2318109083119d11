import copy

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import Blend, StepIndex, row_of


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


@pytest.mark.parametrize(
    ("t", "row"),
    [(-5, 0), (0, 0), (1, 0), (25, 0), (26, 0), (27, 1), (76, 1), (77, 2), (101, 2), (999, 2)],
)
def test_pick_takes_the_nearest_row_the_lower_of_a_tie(t, row):
    step = StepIndex([1, 51, 101], "pick")
    step.set(t)
    assert step.row == step.index == row


def test_pick_between_uneven_and_real_timesteps():
    step = StepIndex([1, 100, 101], "pick")
    for t, row in ((50, 0), (51, 1), (50.5, 0), (100.4, 1), (100.5, 1), (100.6, 2)):
        step.set(t)
        assert step.row == row


@pytest.mark.parametrize(
    ("t", "row"), [(0, 0), (1, 0), (51, 1), (101, 2), (500, 2), (26, Blend(0, 0.5)),
                   (61, Blend(1, 0.2)), (98.5, Blend(1, 0.95))]
)  # fmt: skip
def test_interpolate_blends_neighbours_and_reaches_on_beyond_the_ends(t, row):
    step = StepIndex([1, 51, 101], "interpolate")
    step.set(t)
    assert step.row == row
    if isinstance(row, Blend):
        with pytest.raises(BenchError, match="lies between .* train and calibrate at the table's"):
            _ = step.index
    else:
        assert step.index == row


def test_by_timestep_refuses_what_has_no_row_of_its_own():
    step = StepIndex([1, 51], "by_timestep")
    for t in (0, 26, 52, 50.5):
        with pytest.raises(BenchError, match=rf"timestep {t} is not .* 'pick' or 'interpolate'"):
            step.set(t)
    step.set(51.0)
    assert step.index == 1


def test_a_blend_is_the_weighted_mean_of_two_rows():
    table = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 0.0]], requires_grad=True)
    torch.testing.assert_close(row_of(table, Blend(1, 0.25)), torch.tensor([3.5, 3.0]))
    assert torch.equal(row_of(table, 2), torch.tensor([5.0, 0.0]))
    row_of(table, Blend(0, 0.25)).sum().backward()
    assert table.grad.tolist() == [[0.75, 0.75], [0.25, 0.25], [0, 0]]


def test_pick_samples_a_long_table_like_every_fifth_entry():
    """What the released code does by index when 20 of 100 trained steps are sampled."""
    table = torch.randn(100, generator=torch.Generator().manual_seed(1))
    step, found = StepIndex(range(1, 1000, 10), "pick"), []
    for t in range(1, 1000, 50):
        step.set(t)
        found.append(row_of(table, step.row))
    assert torch.equal(torch.stack(found), table[::5])
