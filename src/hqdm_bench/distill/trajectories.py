"""Teacher trajectories: the noisy latents a student learns on, and what the teacher says there.

The path from x_T to x_0 follows the teacher's own guided prediction, so it does not depend on the
student: it is drawn once per model and shared by every method, bit-width and seed. That is exact,
and it takes the teacher out of the training loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.models import DDIM, LatentDiffusion, at_precision, guide

__all__ = [
    "Rolled",
    "Trajectories",
    "generate",
    "load_trajectories",
    "roll",
    "save_trajectories",
    "training_sequence",
]


@dataclass(frozen=True)
class Trajectories:
    """N trajectories of S denoising steps with B images each.

    Attributes:
        x_t: (N, S, B, C, h, w) float32 latents before each step; step index S-1 is the noisiest, 0
            the last one.
        eps: (N, S, B, C, h, w) float32 guided noise predictions of the teacher at ``x_t``.
        labels: (N, B) int64, or None for an unconditional model.
        timesteps: the S diffusion times t, ascending.
        guidance: scale of the guided predictions.
        pool: the first ``pool`` trajectories are for training, the others are held out.
        recipe: the recipe fields that define this set.
        branches: (N, S, 2, B, C, h, w) float32 predictions behind ``eps``, unconditional first;
            None without guidance, and for a set of an earlier version.
    """

    x_t: Tensor
    eps: Tensor
    labels: Tensor | None
    timesteps: tuple[int, ...]
    guidance: float
    pool: int
    recipe: dict[str, Any]
    branches: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x_t)

    @property
    def training(self) -> "Trajectories":
        """The trajectories students are calibrated and trained on."""
        return self._rows(slice(0, self.pool))

    @property
    def held_out(self) -> "Trajectories":
        """The trajectories no student has seen."""
        return self._rows(slice(self.pool, None))

    def _rows(self, rows: slice) -> "Trajectories":
        labels = None if self.labels is None else self.labels[rows]
        branches = None if self.branches is None else self.branches[rows]
        x_t, eps = self.x_t[rows], self.eps[rows]
        return replace(self, x_t=x_t, eps=eps, labels=labels, branches=branches)

    def require(self, recipe: Recipe) -> None:
        """Refuse a recipe this set was not drawn for.

        Raises:
            BenchError: a field that defines the set differs.
        """
        for key, wanted in recipe.trajectory_fields().items():
            if self.recipe.get(key) != wanted:
                raise BenchError(
                    f"the trajectories were drawn with {key} {self.recipe.get(key)}, recipe "
                    f"'{recipe.name}' says {wanted}; draw them again"
                )


class Rolled(NamedTuple):
    """One trajectory, on the CPU; index 0 along S is the last step.

    Attributes:
        x_t: (S, B, C, h, w) what the teacher saw.
        eps: (S, B, C, h, w) what it said.
        branches: (S, 2, B, C, h, w), the predictions behind that; None without guidance.
    """

    x_t: Tensor
    eps: Tensor
    branches: Tensor | None


@torch.no_grad()
def generate(
    teacher: LatentDiffusion, recipe: Recipe, progress: Progress | None = None
) -> Trajectories:
    """Draw ``pool + validation_trajectories`` trajectories.

    Trajectory n depends on the recipe's seed and on n only. With eta above 0 every step adds fresh
    noise, the last one included, as in the released training script.

    Args:
        teacher: full-precision model.
        recipe: steps, counts, eta, guidance, seed, and the precision the teacher runs at.
        progress: told the number of finished trajectories.
    """
    teacher = at_precision(teacher, recipe.teacher_precision)
    ddim = DDIM.from_schedule(teacher.schedule, recipe.steps, recipe.eta)
    count = recipe.pool + recipe.validation_trajectories
    shape = (count, recipe.steps, recipe.batch, *teacher.latent_shape)
    x_t, eps = torch.empty(shape), torch.empty(shape)
    labels = branches = None
    if teacher.null_label is not None:
        labels = torch.stack([_labels(teacher.null_label, recipe, n) for n in range(count)])
    if teacher.guides(labels, recipe.guidance):
        branches = torch.empty((*shape[:2], 2, *shape[2:]))
    for n in range(count):
        random = generator("trajectory-noise", recipe.seed, n)
        start, *noise = torch.randn((recipe.steps + 1, *shape[2:]), generator=random)
        own = None if labels is None else labels[n]
        rolled = roll(teacher, ddim, start, noise, own, recipe.guidance)
        x_t[n], eps[n] = rolled.x_t, rolled.eps
        if branches is not None and rolled.branches is not None:
            branches[n] = rolled.branches
        if progress:
            progress.update(n + 1)
    times = tuple(int(t) for t in ddim.timesteps)
    fields = recipe.trajectory_fields()
    return Trajectories(x_t, eps, labels, times, recipe.guidance, recipe.pool, fields, branches)


def _labels(classes: int, recipe: Recipe, n: int) -> Tensor:
    random = generator("trajectory-labels", recipe.seed, n)
    return torch.randint(classes, (recipe.batch,), generator=random)


@torch.no_grad()
def roll(
    teacher: LatentDiffusion,
    ddim: DDIM,
    start: Tensor,
    noise: Sequence[Tensor],
    labels: Tensor | None,
    guidance: float,
) -> Rolled:
    """Denoise one batch with the teacher and keep what it saw and said.

    Args:
        teacher: full-precision model.
        ddim: step constants.
        start: (B, C, h, w) x_T.
        noise: S tensors like ``start``; the first is added at the first, noisiest step.
        labels: (B,), or None.
        guidance: classifier-free guidance scale.
    """
    device = next(teacher.unet.parameters()).device
    labels = None if labels is None else labels.to(device)
    x = start.to(device)
    seen, said, branches = [], [], []
    for index, fresh in zip(reversed(range(len(noise))), noise, strict=True):
        t = int(ddim.timesteps[index])
        if labels is not None and teacher.guides(labels, guidance):
            both = teacher.predict_branches(x, t, labels)
            prediction = guide(both.chunk(2), guidance)
            branches.append(both.unflatten(0, (2, -1)).cpu())
        else:
            prediction = teacher.predict(x, t, labels, guidance)
        seen.append(x.cpu())
        said.append(prediction.cpu())
        x = ddim.step(x, prediction, index, fresh.to(device))
    kept = torch.stack(branches[::-1]) if branches else None
    return Rolled(torch.stack(seen[::-1]), torch.stack(said[::-1]), kept)


def training_sequence(recipe: Recipe, seed: int) -> list[int]:
    """Trajectories in the order a training seed uses them.

    A permutation of the pool, and a new one for each further pass when the recipe asks for more
    trajectories than the pool holds.
    """
    order: list[int] = []
    passes = 0
    while len(order) < recipe.trajectories:
        random = generator("trajectory-order", seed, passes)
        order += torch.randperm(recipe.pool, generator=random).tolist()
        passes += 1
    return order[: recipe.trajectories]


def save_trajectories(
    path: Path, trajectories: Trajectories, metadata: dict[str, Any] | None = None
) -> None:
    """Write a set as safetensors with its recipe in the header.

    Of guided predictions only the two behind each are stored.
    """
    tensors = {"x_t": trajectories.x_t}
    if trajectories.branches is None:
        tensors["eps"] = trajectories.eps
    else:
        tensors["branches"] = trajectories.branches
    if trajectories.labels is not None:
        tensors["labels"] = trajectories.labels
    header = {
        "timesteps": list(trajectories.timesteps),
        "guidance": trajectories.guidance,
        "pool": trajectories.pool,
        "recipe": trajectories.recipe,
    }
    write_tensors(path, tensors, {**(metadata or {}), **header})


def load_trajectories(path: Path) -> Trajectories:
    """Read a set; guided predictions are formed again, by the arithmetic they came from.

    Raises:
        BenchError: the file is missing, damaged, or not a trajectory file.
    """
    tensors, header = read_tensors(path)
    branches = tensors.get("branches")
    try:
        if branches is not None:
            tensors["eps"] = guide(branches.unbind(2), header["guidance"])
        return Trajectories(
            x_t=tensors["x_t"],
            eps=tensors["eps"],
            labels=tensors.get("labels"),
            timesteps=tuple(header["timesteps"]),
            guidance=header["guidance"],
            pool=header["pool"],
            recipe=header["recipe"],
            branches=branches,
        )
    except KeyError as error:
        raise BenchError(f"{path} holds no trajectories (no {error}); draw them again") from None
