"""docs/methods.md says what the code does: settings, presets, options, and tests that exist."""

import re
from pathlib import Path

import pytest

from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.methods import (
    LearnSteps,
    MethodOptions,
    RoundTemporal,
    RoundWeights,
    Stage,
    available_methods,
)
from hqdm_bench.methods.lsq import LsqOptions
from hqdm_bench.methods.ptq import PtqOptions
from hqdm_bench.methods.stage_finetune import FineTune
from hqdm_bench.methods.stage_scaling import LearnScaling

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
METHODS = {
    name: method.options()
    for name, method in available_methods().items()
    if issubclass(method.options, PtqOptions)
}
RANGES = {
    "mse": "mean-error search",
    "minmax": "least and largest value",
    "ema": "moving average",
    "ema_zero": "moving average, with zero",
    "ema_above_a4": "least and largest value, above 4 bits their moving average",
}


def rows(first: str) -> list[list[str]]:
    """Cells of the table whose head begins with some cells."""
    head = re.escape(first)
    (table,) = re.findall(rf"^{head}.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def number(text: str) -> float:
    """The first number of a cell; thousands are apart."""
    found = re.match(r"(?:p )?(\d[\d ]*(?:\.\d+)?(?:e-\d+)?)", text)
    assert found, text
    return float(found[1].replace(" ", ""))


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", METHODS)
def test_grids_are_the_defaults(name: str) -> None:
    options = METHODS[name]
    (row,) = [row for row in rows("| method | policy |") if row[0] == f"`{name}`"]
    _, policy, weights, inputs, ranges, attention = row
    assert policy == f"`{options.policy}`"
    assert weights == {"channel": "output channel", "tensor": "tensor"}[options.weight_grids]
    assert inputs.startswith(options.activation_grid)
    steps = {"per_step": "timestep", "shared": "input"}[options.activation_steps]
    assert re.search(rf"^\w+ ?(\(.*?\))?, {steps}\b", inputs)
    assert ranges.partition(" (")[0] == RANGES[options.activation_range]
    quantized = {"quantized": f"quantized, softmax {options.softmax_bits} bits"}
    assert attention == quantized.get(options.attention, "full precision")


def settings(stage: Stage) -> tuple[float, ...]:
    """Updates or epochs, batch, rate and timesteps of a stage that takes gradients."""
    if isinstance(stage, (RoundWeights, LearnSteps, RoundTemporal)):
        fit = stage.fit
        return fit.updates, fit.batch, fit.rate, stage.timesteps
    if isinstance(stage, LearnScaling):
        own = stage.settings
        return own.iterations, own.batch, own.learning_rate, stage.timesteps
    assert isinstance(stage, FineTune)
    return stage.epochs, stage.batch, stage.weight_rate, stage.timesteps


def test_the_settings_of_the_stages_are_the_defaults() -> None:
    found: dict[str, list[list[str]]] = {}
    name = ""
    for row in rows("| method | stages |"):
        name = row[0].strip("`") or name  # an empty cell stands for that above it
        found.setdefault(name, []).append(row[1:])
    assert found.keys() == METHODS.keys()
    kinds = (RoundWeights, LearnSteps, RoundTemporal, LearnScaling, FineTune)
    for name, options in METHODS.items():
        stages = [stage for stage in options.stages() if isinstance(stage, kinds)]
        fits = [row for row in found[name] if re.match(r"\d", row[2]) and row[3]]
        assert len(fits) == len(stages), name
        if not isinstance(options, LsqOptions) and len(options.stages()) > 1:
            assert len(found[name]) == len(options.stages()), name
        for stage, (_, updates, batch, rate, timesteps) in zip(stages, fits, strict=True):
            rate = rate.partition("weights ")[2] or rate
            rate = rate.removeprefix("and step sizes ")
            numbers = tuple(number(cell) for cell in (updates, batch, rate, timesteps))
            assert numbers == settings(stage), (name, stage.name)


def test_what_mini_leaves_is_what_the_recipe_leaves() -> None:
    sampler = load_catalogue(ROOT).recipe("mini").post_training
    assert sampler is not None
    scale = sampler.scale
    cells = [row[2] for row in rows("| | released | `mini` |")]
    images, rounding, steps, scales, temporal, attention, paths = cells

    def fitted(name: str) -> dict[str, tuple[float, ...]]:
        fits = {}
        for stage in METHODS[name].stages():
            if isinstance(stage, (RoundWeights, LearnSteps)):
                fit = stage.fit.scaled(scale)
                fits[stage.name] = (fit.updates, fit.rate)
            elif isinstance(stage, LearnScaling):
                own = stage.scaled(scale)
                fits[stage.name] = (own.iterations, own.learning_rate)
            elif isinstance(stage, FineTune):
                tuned = stage.scaled(scale)
                fits[stage.name] = (tuned.epochs, tuned.samples)
        return fits

    def two(text: str) -> tuple[float, ...]:
        return tuple(map(float, re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", text)[:2]))

    qdiffusion, quest = fitted("qdiffusion"), fitted("quest")
    assert two(rounding) == qdiffusion["round weights"]
    assert two(steps) == qdiffusion["learn steps"]
    assert two(scales) == fitted("dmq")["learn scaling"]
    assert two(temporal) == quest["fine tune temporal"]
    assert two(attention) == quest["fine tune attention"]
    assert fitted("ptqd")["round weights"][0] == float(re.findall(r"\((\d+)\)", rounding)[0])
    drawn = [round(METHODS[name].calibration_images * scale.data) for name in ("tfmq", "ptqd")]
    assert two(images) == tuple(drawn)
    assert int(paths) == round(1024 * scale.data)


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_and_option_of_its_own_is_described(name: str) -> None:
    method = available_methods()[name]
    text = section(method.title)
    assert text, f"no section '{method.title}'"
    assert f"methods/{name}.py" in text
    assert method.paper.rpartition("/")[2] in text or name == "rtn"
    presets: dict[str, MethodOptions] = method.options.presets()
    for preset in presets:
        assert preset == "as_code" or f"`{preset}`" in text, preset


def test_the_tests_that_are_named_exist() -> None:
    found = re.findall(r"`(tests/[\w/]+\.py)`(?:\s*\(((?:`test_\w+`[^`)]*)+)\))?", TEXT)
    assert len(found) > 12
    for path, names in found:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"def {name}(" in source, f"{path} has no {name}"
    assert len(re.findall(r"`test_\w+`", TEXT)) == sum(
        len(re.findall(r"`test_\w+`", names)) for _, names in found
    )


@pytest.mark.parametrize("page", ["methods.md", "add-a-method.md", "any-model.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    heads = {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), link
        assert path or anchor in heads, link
