"""AdamW against torch's own, row by row, and with factors on the gradients."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.distill import AdamW

STEPS = 4
ROWS = [3, 2, 1, 0, 3, 2, 2, 0, 3, 1, 0, 0]  # uneven on purpose


def test_adamw_is_the_one_of_torch() -> None:
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(5, 3, generator=random, dtype=torch.float64) for _ in range(4)]
    rates = (1e-2, 1e-2, 3e-3, 5e-4)
    ours = [nn.Parameter(value.clone()) for value in start]
    theirs = [nn.Parameter(value.clone()) for value in start]
    for parameters in (ours, theirs):
        parameters[3].data = parameters[0].data  # two parameters on one storage

    def groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
        return [
            {"params": [parameter], "lr": rate, "weight_decay": 0.1}
            for parameter, rate in zip(parameters, rates, strict=True)
        ]

    mine, reference = AdamW(groups(ours)), torch.optim.AdamW(groups(theirs))
    for update in range(6):
        for pair in zip(ours, theirs, strict=True):
            gradient = torch.randn(5, 3, generator=random, dtype=torch.float64)
            for parameter in pair:
                parameter.grad = gradient.clone()
        factor = 1 - update / 6
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        mine.step(factor)
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def draw(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


def group(parameters: list[nn.Parameter], rate: float, **extra: object) -> dict[str, object]:
    return {"params": parameters, "lr": rate, "weight_decay": 0.1, **extra}


def torch_adamw(groups: Iterable[dict[str, object]]) -> torch.optim.AdamW:
    """A group a parameter, so that shared storages are updated one after the other."""
    return torch.optim.AdamW(
        [{**entry, "params": [one]} for entry in groups for one in entry["params"]]
    )


def test_rows_are_separate_parameters_without_gradients() -> None:
    """Tables (S,), scales (S, c_out, 1, 1) in two parameters on one storage, an ordinary one."""
    random = torch.Generator().manual_seed(0)
    table, scales = draw(random, STEPS), draw(random, STEPS, 3, 1, 1)
    plain = draw(random, 2, 3)
    ours = [nn.Parameter(value.clone()) for value in (table, scales, scales, plain)]
    ours[2].data = ours[1].data
    rows = [[nn.Parameter(row.clone()) for row in value] for value in (table, scales, scales)]
    for quantizer, dequantizer in zip(rows[1], rows[2], strict=True):
        dequantizer.data = quantizer.data
    theirs = nn.Parameter(plain.clone())
    mine = AdamW(
        [
            group(ours[1:2], 1e-3, rows=True),
            group(ours[2:3], 1e-3, rows=True),
            group(ours[:1], 2e-2, rows=True),
            group(ours[3:], 1e-2),
        ]
    )
    reference = torch_adamw(
        [group(rows[1], 1e-3), group(rows[2], 1e-3), group(rows[0], 2e-2), group([theirs], 1e-2)]
    )
    rates = [entry["lr"] for entry in reference.param_groups]
    for update, row in enumerate(ROWS):
        mine.zero_grad()
        reference.zero_grad()
        for parameter, pieces in zip(ours, rows, strict=False):
            gradient = draw(random, *pieces[row].shape)
            pieces[row].grad = gradient.clone()
            parameter.grad = torch.zeros_like(parameter)
            parameter.grad[row] = gradient
        theirs.grad = draw(random, *plain.shape)
        ours[3].grad = theirs.grad.clone()
        factor = 1 - update / len(ROWS)
        for entry, rate in zip(reference.param_groups, rates, strict=True):
            entry["lr"] = rate * factor
        mine.step(factor, row)
        reference.step()
    for parameter, pieces in zip(ours, rows, strict=False):
        torch.testing.assert_close(parameter.data, torch.stack(pieces).data, rtol=1e-13, atol=0)
    torch.testing.assert_close(ours[3], theirs, rtol=1e-13, atol=0)
    assert mine.row_steps.tolist() == [ROWS.count(row) for row in range(STEPS)]
    assert mine.steps == len(ROWS)


def test_rows_out_of_use_stay_to_the_last_bit() -> None:
    """A vector's other entries decay and follow their momentum; separate ones do not move."""
    moved = {}
    for by_row in (False, True):
        table = nn.Parameter(torch.full((3,), 2.0))
        optimiser = AdamW([group([table], 1e-2, rows=by_row)])
        for row in (0, 1):
            table.grad = torch.zeros(3)
            table.grad[row] = 1.0
            optimiser.step(1.0, row)
            moved[by_row, row] = table.detach().clone()
    assert moved[False, 0][2] < 2
    assert moved[False, 1][0] < moved[False, 0][0]
    assert moved[True, 0][1:].tolist() == [2, 2]
    assert moved[True, 1][0] == moved[True, 0][0]
    assert moved[True, 1][1] == moved[True, 0][0]  # its own first step, of the full length
    assert moved[True, 1][2] == 2


def after(factor: float, size: float, by_hand: bool = False) -> Tensor:
    """Two parameters after ten updates on gradients of a size times a factor; one row by row."""
    random = torch.Generator().manual_seed(1)
    plain, table = (nn.Parameter(draw(random, *shape)) for shape in ((5,), (STEPS, 2)))
    extra = {} if by_hand else {"gradient_factor": factor}
    optimiser = AdamW([group([plain], 1e-2, **extra), group([table], 1e-3, rows=True, **extra)])
    for update in range(10):
        optimiser.zero_grad()
        loss = size * (plain @ draw(random, 5) + (table[update % STEPS] @ draw(random, 2)))
        (loss * factor if by_hand else loss).backward()
        optimiser.step(1.0, update % STEPS)
    return torch.cat([plain.detach(), table.detach().flatten()])


def test_a_gradient_factor_is_a_factor_on_the_loss() -> None:
    found = after(0.037, 1e-7)
    torch.testing.assert_close(found, after(0.037, 1e-7, by_hand=True), rtol=1e-13, atol=0)
    assert not torch.equal(found, after(1.0, 1e-7))


def test_adam_cancels_a_gradient_factor_but_for_its_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientDM's text multiplies gradients by the weight scale; it is eps alone that feels it.

    A factor of 1e-3 on gradients of size 1 shifts the parameters by less than 2e-6, on gradients of
    size 1e-6, below eps once multiplied, by 1e-2 and more; without eps by rounding only.
    """
    assert (after(1e-3, 1.0) - after(1.0, 1.0)).abs().max() < 2e-6
    assert (after(1e-3, 1e-6) - after(1.0, 1e-6)).abs().max() > 1e-2
    monkeypatch.setattr(AdamW, "EPS", 1e-300)
    for size in (1.0, 1e-6):
        torch.testing.assert_close(after(1e-3, size), after(1.0, size), rtol=1e-12, atol=0)
