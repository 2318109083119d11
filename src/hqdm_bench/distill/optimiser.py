"""One update of a student at the linearly decaying rates of the recipe, and its exact state."""

import math
from typing import Any

from torch import Tensor

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.methods import Student

__all__ = ["Optimiser"]

REMEDIES = {
    "lora": "raise lora_lr_divisor",
    "weight": "raise lora_lr_divisor",
    "weight_scale": "lower weight_scale_lr",
    "activation": "lower activation_lr",
}


class Optimiser:
    """Train a student's parameter groups; update u uses factor 1 - (u-1)/U on every rate.

    Args:
        student: calibrated student.
        recipe: rates, decay and number of updates U.
    """

    def __init__(self, student: Student, recipe: Recipe) -> None:
        self.student = student
        self.recipe = recipe
        self.groups = student.parameter_groups(recipe)
        self.adamw = AdamW(self.groups)
        names = {id(parameter): name for name, parameter in student.named_parameters()}
        self.names = [names[id(parameter)] for parameter in self.adamw.parameters]

    @property
    def done(self) -> int:
        """Updates so far."""
        return self.adamw.steps

    @property
    def settings(self) -> dict[str, Any]:
        """What must go with `state` to continue.

        Rates and gradient factors are those of the first update, and some follow from weight scales
        that have moved since.
        """
        factors = self.adamw.gradient_factors
        return {"done": self.done, "rates": self.adamw.rates, "gradient_factors": factors}

    def update(self, loss: Tensor) -> float:
        """Differentiate a loss and take one step.

        Returns:
            The loss as a number.

        Raises:
            BenchError: the loss is not finite.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BenchError(self._diverged(value))
        self.adamw.zero_grad()
        loss.backward()
        row = None if self.student.step is None else self.student.step.index
        self.adamw.step(1 - self.done / self.recipe.updates, row)
        return value

    def _diverged(self, value: float) -> str:
        broken = [
            REMEDIES[group["name"]]
            for group in self.groups
            if not all(bool(parameter.isfinite().all()) for parameter in group["params"])
        ]
        remedy = broken[0] if broken else REMEDIES["activation"]
        return (
            f"training diverged: the loss of update {self.done + 1} of {self.recipe.updates} is "
            f"{value}; {remedy} in recipe '{self.recipe.name}' and train again"
        )

    def state(self) -> dict[str, Tensor]:
        """Trained parameters, their Adam state and the fixed activation ranges; not copied.

        The ranges make a calibration before `restore` needless. Another device would not repeat it
        exactly.
        """
        adamw = self.adamw
        kinds = {
            "parameter": adamw.parameters,
            "mean": adamw.mean,
            "mean_square": adamw.mean_square,
        }
        trained = {
            f"{kind}/{name}": value.detach()
            for kind, values in kinds.items()
            for name, value in zip(self.names, values, strict=True)
        }
        ranges = {
            f"range/{name}.{key}": value
            for name, holder in self.student.quantized_inputs().items()
            for key, value in holder.measured().items()
        }
        counts = {"row_steps": adamw.row_steps} if len(adamw.row_steps) else {}
        return trained | ranges | counts

    def restore(self, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
        """Continue from `state` and `settings`.

        Raises:
            BenchError: a tensor is missing or has another shape.
        """
        for name, value in self.state().items():
            stored = tensors.get(name)
            if stored is None or stored.shape != value.shape:
                raise BenchError(f"the training checkpoint has no fitting {name}; delete it")
            value.copy_(stored)
        self.adamw.rates = list(settings["rates"])
        self.adamw.gradient_factors = list(settings["gradient_factors"])
        self.adamw.steps = settings["done"]
