"""Seconds of the units of work that `hqdm-bench plan` adds up, measured on this machine.

    OMP_NUM_THREADS=1 python benchmarks/unit_costs.py
    python benchmarks/unit_costs.py --device cuda --subjects imagenet inception

Models and extractors at full size with random weights; nothing is downloaded. The result goes to
`config/costs/machines/{device}.json`, which `plan` reads; what the file holds of other subjects is
kept. Each unit runs in a process of its own: one call to warm up, then `--runs` calls, of which the
fastest counts. On a CPU it is the CPU time of one thread, which is what the workflow gives a job;
on a GPU it is elapsed time.

Units: a row (one latent) through the teacher, in float32 and under bfloat16 autocast; a row through
a frozen student; a row of a training update, optimiser included; one image decoded by the first
stage; the features of one image; what a job spends before its work.
"""

import argparse
import multiprocessing
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hqdm_bench.catalogue import Bits, Catalogue, Recipe, load_catalogue
from hqdm_bench.common.files import read_json, write_json
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.loop import guided_loss
from hqdm_bench.distill.optimiser import Optimiser
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.evaluate.inception_network import InceptionNetwork, inception_shapes
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion, build_latent_diffusion
from hqdm_bench.models.mini.classifier import ClassifierRecipe, MiniClassifier

ROOT = Path(__file__).parents[1]
RECIPES = {
    "imagenet": "released",
    "bedrooms": "released-lsun",
    "churches": "released-lsun",
    "mini-imagenet": "mini",
    "mini-bedrooms": "mini-lsun",
    "mini-churches": "mini-lsun",
}
EXTRACTORS = ("inception", "mini-classifier")
SUBJECTS = (*RECIPES, *EXTRACTORS)
UNITS = ("teacher", "teacher-bfloat16", "student", "update", "decode")
ROWS = {"cpu": {"decode": 1, "features": 8}, "cuda": {"decode": 16, "features": 64}}
OTHER_ROWS = {"cpu": 2, "cuda": 64}
MINI_ROWS = 64
START = "import hqdm_bench.distill, hqdm_bench.sample"  # with torch, what every job imports


@dataclass(frozen=True)
class Job:
    """One measurement; the subject is a model or an extractor."""

    subject: str
    unit: str
    device: str
    runs: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--runs", type=int, default=3, help="timed calls (default: 3)")
    parser.add_argument("--output", type=Path, help="default: config/costs/machines/{device}.json")
    given = parser.parse_args()
    name, torch_version = device_name(given.device), torch.__version__.partition("+")[0]
    path = given.output or ROOT / f"config/costs/machines/{slug(name)}.json"
    entries = [start()]
    for subject in given.subjects:
        for unit in UNITS if subject in RECIPES else ("features",):
            entries.append(in_own_process(Job(subject, unit, given.device, given.runs)))
            print(*(f"{key} {value}" for key, value in entries[-1].items()), sep="  ", flush=True)
    if path.exists():
        before = read_json(path)
        if (before["device"], before["torch"]) == (name, torch_version):
            entries += [one for one in before["entries"] if is_other(one, given.subjects)]
    clock = "elapsed time" if given.device == "cuda" else "CPU time of one thread"
    note = (
        f"{clock}, fastest of several calls (benchmarks/unit_costs.py); float32 without TF32; "
        "other programs were running"
    )
    report = {
        "device": name,
        "kind": given.device,
        "torch": torch_version,
        "note": note,
        "entries": sorted(entries, key=lambda one: (one.get("model", ""), one["unit"])),
    }
    write_json(path, report)


def is_other(entry: dict[str, Any], subjects: list[str]) -> bool:
    """Whether an entry of the file was not measured again."""
    return "model" in entry and entry["model"] not in subjects


def start() -> dict[str, Any]:
    """CPU time of a process that imports what a job imports and does nothing."""
    fastest = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", START], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        fastest = min(fastest, spent)
    return {"unit": "start", "seconds": float(f"{fastest:.3g}")}


def in_own_process(job: Job) -> dict[str, Any]:
    """Measure where nothing else was, so that peak memory is this unit's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, job).result()


def measure(job: Job) -> dict[str, Any]:
    """Seconds a row and peak memory of one unit."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    call, rows = prepare(job, load_catalogue(ROOT))
    clock = time.perf_counter if job.device == "cuda" else time.process_time
    best = float("inf")
    for run in range(job.runs + 1):
        start = clock()
        call()
        if job.device == "cuda":
            torch.cuda.synchronize()
        if run:
            best = min(best, clock() - start)
    seconds = float(f"{best / rows:.4g}")
    return {
        "model": job.subject,
        "unit": job.unit,
        "seconds": seconds,
        "rows": rows,
        "runs": job.runs,
        "memory_mb": peak_memory(job),
    }


def peak_memory(job: Job) -> int:
    """MB of the whole process, or of the GPU."""
    if job.device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def prepare(job: Job, catalogue: Catalogue) -> tuple[Callable[[], Any], int]:
    """The call to time, and how many rows it does."""
    rows = ROWS[job.device].get(job.unit, OTHER_ROWS[job.device])
    rows = MINI_ROWS if job.subject.startswith("mini") else rows
    if job.subject in EXTRACTORS:
        return features(job.subject, rows, job.device), rows
    recipe = catalogue.recipe(RECIPES[job.subject])
    model = build_latent_diffusion(catalogue.model(job.subject)).eval().to(job.device)
    if job.unit in ("student", "update"):
        student = ready_student(catalogue, model, recipe)
        if job.unit == "update":
            doubled = 2 if model.null_label is not None and recipe.guidance != 1 else 1
            return update(student, model, recipe), recipe.batch * doubled
        model = model.with_unet(student.freeze())
    x = noise(rows, *model.latent_shape).to(job.device)
    if job.unit == "decode":
        return torch.no_grad()(lambda: model.decode(x)), rows
    labels = None if model.null_label is None else torch.zeros(rows, dtype=torch.long)
    labels = labels if labels is None else labels.to(job.device)
    precision = torch.autocast(
        job.device, torch.bfloat16, enabled=job.unit.endswith("bfloat16"), cache_enabled=False
    )

    @torch.no_grad()
    def forward() -> None:
        with precision:
            model.predict(x, 1, labels)

    return forward, rows


def ready_student(catalogue: Catalogue, model: LatentDiffusion, recipe: Recipe) -> Student:
    """A W4A4 HQ-DM student; any range will do for its speed."""
    student = build_student(catalogue.method("hqdm"), model, Bits(4, 4), recipe, 0)
    for layer in student.quantized_layers().values():
        layer.activation.initialise(0.1)
    return student.to(next(model.parameters()).device)


def update(student: Student, model: LatentDiffusion, recipe: Recipe) -> Callable[[], float]:
    """One update as the training loop does it."""
    assert student.step is not None
    times = tuple(student.step.timesteps)
    x = noise(1, 1, recipe.batch, *model.latent_shape).expand(1, len(times), -1, -1, -1, -1)
    labels = None if model.null_label is None else torch.zeros(1, recipe.batch, dtype=torch.long)
    trajectories = Trajectories(x, x, labels, times, recipe.guidance, 1, {})
    around = model.with_unet(student)
    optimiser = Optimiser(student, recipe)
    return lambda: optimiser.update(guided_loss(around, trajectories, 0, 0))


def features(extractor: str, rows: int, device: str) -> Callable[[], Any]:
    """The features of images as they are stored, resizing included."""
    if extractor == "inception":
        weights = {
            name: torch.zeros(shape, dtype=dtype)
            for name, (dtype, shape) in inception_shapes().items()
        }
        images = torch.zeros(rows, 256, 256, 3, dtype=torch.uint8, device=device)
        network = InceptionNetwork(weights).to(device)
        return lambda: network.outputs(images)
    classifier = MiniClassifier(len(ClassifierRecipe().classes)).eval().to(device)
    images = torch.zeros(rows, 64, 64, 3, dtype=torch.uint8, device=device)
    return torch.no_grad()(lambda: classifier(images))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator("unit-costs", 0))


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's from the operating system."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
