# What the rules share: the catalogue, wildcards, and the functions that turn a suite into paths.
from pathlib import Path

from hqdm_bench.catalogue import Bits, Layout, load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.report import table_models
from hqdm_bench.report.figures import figure_inputs
from snakemake.exceptions import WorkflowError

try:
    CATALOGUE = load_catalogue(Path("."))
except BenchError as error:
    raise WorkflowError(str(error)) from None

LAYOUT = Layout(Path("."))
EMBEDDED = [
    name for name, spec in CATALOGUE.models.items() if spec.source == "embedded"
]
CHECKPOINTS = [
    name for name, spec in CATALOGUE.models.items() if spec.source == "checkpoint"
]
TRAINED = [name for name in CATALOGUE.methods if name != "fp"]


wildcard_constraints:
    suite="|".join(CATALOGUE.suites),
    model="|".join(CATALOGUE.models),
    method="|".join(sorted(CATALOGUE.methods, key=len, reverse=True)),
    bits=r"w\d+a\d+",
    seed=r"\d+",
    protocol="|".join(CATALOGUE.protocols),
    shard=r"\d+",
    number=r"[1-4]",
    figure=r"fig\d\d[a-z]?_[a-z0-9_]+",


def suite_targets(suite):
    """Every table and figure of a suite."""
    selected = CATALOGUE.suite(suite)
    tables = [
        LAYOUT.table(suite, n, s) for n in selected.tables for s in ("csv", "md", "tex")
    ]
    figures = [
        LAYOUT.figure(suite, name, s)
        for name in selected.figures
        for s in ("pdf", "png")
    ]
    return [str(path) for path in tables + figures]


def cell_of(wildcards):
    return CATALOGUE.suite(wildcards.suite).cell(
        wildcards.model,
        wildcards.method,
        Bits.parse(wildcards.bits),
        int(wildcards.seed),
    )


def recipe_of(wildcards):
    return CATALOGUE.recipe(
        CATALOGUE.suite(wildcards.suite).model(wildcards.model).recipe
    )


def protocol_of(wildcards):
    return CATALOGUE.protocol(
        CATALOGUE.suite(wildcards.suite).model(wildcards.model).protocol
    )


def shards_of(cell):
    shards = CATALOGUE.protocol(cell.protocol).shards
    return [str(LAYOUT.shard(cell, shard)) for shard in range(shards)]


def full_precision_cell(wildcards):
    """The cell whose images a student's are paired with: same noise, same labels."""
    return CATALOGUE.suite(wildcards.suite).cell(wildcards.model, "fp", Bits(32, 32), 0)


def weights_of(wildcards):
    """What a cell samples with: its student, or the teacher itself for full precision."""
    if wildcards.method == "fp":
        return []
    return str(LAYOUT.student(cell_of(wildcards)))


def fp_shards(wildcards):
    return [] if wildcards.method == "fp" else shards_of(full_precision_cell(wildcards))


def table_cells(wildcards):
    suite = CATALOGUE.suite(wildcards.suite)
    models = table_models(int(wildcards.number), suite, CATALOGUE)
    return [cell for spec in models for cell in suite.model(spec.name).cells]


def table_inputs(wildcards):
    """Metrics of every cell in the table, and the training record of every student."""
    cells = table_cells(wildcards)
    trained = [cell for cell in cells if cell.method != "fp"]
    paths = [LAYOUT.metrics(cell) for cell in cells]
    paths += [LAYOUT.training(cell) for cell in trained]
    paths += [LAYOUT.history(cell) for cell in trained]
    paths.append(f"paper/data/table{wildcards.number}.csv")
    return [str(path) for path in paths]


def drawn_from(wildcards):
    """Only what one figure shows, so that it is redrawn only when that changes."""
    suite = CATALOGUE.suite(wildcards.suite)
    return [
        str(path)
        for path in figure_inputs(wildcards.figure, Path("."), suite, CATALOGUE)
    ]


def on_gpu(wildcards):
    """GPUs a job asks for: checkpoints are GPU-sized, embedded models are not."""
    return 1 if CATALOGUE.models[wildcards.model].source == "checkpoint" else 0


def minutes(checkpoint, embedded):
    """Runtime in minutes by the size of the model."""
    return lambda wildcards: checkpoint if on_gpu(wildcards) else embedded


def memory(checkpoint, embedded):
    """Memory in MB by the size of the model."""
    return lambda wildcards: checkpoint if on_gpu(wildcards) else embedded
