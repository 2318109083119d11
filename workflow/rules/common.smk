# What the rules share: the catalogue, wildcards, and the functions that turn a suite into paths.
import shlex
from pathlib import Path

from hqdm_bench.catalogue import Bits, Layout, load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.report import table_models
from hqdm_bench.report.figures import figure_inputs
from hqdm_bench.report.page import page_inputs
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
PAPER_FIGURES = 14  # figures of higher numbers are the project's own


def job_root():
    """Where the files of a job lie: here, or where a storage provider brings them."""
    settings = workflow.storage_settings
    if not settings.default_storage_provider:
        return "."
    prefix = settings.default_storage_prefix.split("://")[-1].strip("/")
    return (
        f"{settings.local_storage_prefix}/{settings.default_storage_provider}/{prefix}"
    )


# The verbs look for everything below one folder, so the sources they read are linked into it.
if job_root() != ".":
    shell.prefix(
        f"mkdir -p {job_root()}; ln -sfn $PWD/config $PWD/paper {job_root()}/;"
        f" export HQDM_BENCH_ROOT={job_root()}; "
    )


wildcard_constraints:
    suite="|".join(CATALOGUE.suites),
    model="|".join(CATALOGUE.models),
    method="|".join(sorted(CATALOGUE.methods, key=len, reverse=True)),
    bits=r"w\d+a\d+",
    seed=r"\d+",
    protocol="|".join(CATALOGUE.protocols),
    shard=r"\d+",
    number=r"[1-4]",
    report="differences|comparison|methods",
    figure=r"fig\d\d[a-z]?_[a-z0-9_]+",


def suite_targets(suite):
    """Every table and figure of a suite, its full-precision baselines, and what they rest on.

    A job that fails when it is repeated loses its outputs, while files made of the former ones are
    still there. Snakemake misses a file only if it is asked for it, and would call those up to date.
    Images, features and trajectories are not asked for: they may be deleted to save disk, and
    whatever repeats them repeats what is made of them as well.
    """
    selected = CATALOGUE.suite(suite)
    baselines = [
        LAYOUT.baselines(suite, s)
        for s in ("csv", "md")
        if any(entry.baselines for entry in selected.models)
    ]
    tables = [
        LAYOUT.table(suite, n, s) for n in selected.tables for s in ("csv", "md", "tex")
    ]
    tables += [
        LAYOUT.report(suite, name, s)
        for name in selected.reports
        for s in ("csv", "md", "tex")
    ]
    figures = [
        LAYOUT.figure(suite, name, s)
        for name in selected.figures
        for s in ("pdf", "png")
    ]
    claims = [LAYOUT.claims(suite, s) for s in ("json", "md") if selected.tables]
    page = [LAYOUT.page(suite)] if has_page(selected) else []
    results = tables + claims + figures + baselines + page + foundations(selected)
    return [str(path) for path in results]


def has_page(suite):
    """Whether there is anything to show on a page."""
    return bool(suite.tables or suite.reports)


def foundations(suite):
    """Models, students and metrics of a suite."""
    paths = []
    if any(entry.scored or entry.baselines for entry in suite.models):
        paths.append(LAYOUT.extractor(suite.name))
    for entry in suite.models:
        paths.append(LAYOUT.teacher(suite.name, entry.model))
        if entry.outliers:
            paths.append(LAYOUT.outliers(suite.name, entry.model))
        # Without students nothing waits for a verdict, and a search goes on where one is bad.
        if entry.students and any(baseline.expect for baseline in entry.baselines):
            paths.append(LAYOUT.acceptance(suite.name, entry.model))
        paths += [LAYOUT.metrics(baseline.cell) for baseline in entry.baselines]
        paths += map(LAYOUT.metrics, entry.scored)
        for cell in entry.students:
            paths += [LAYOUT.student(cell), LAYOUT.history(cell), LAYOUT.training(cell)]
    return paths


def cell_of(wildcards):
    return CATALOGUE.suite(wildcards.suite).cell(
        wildcards.model,
        wildcards.method,
        Bits.parse(wildcards.bits),
        int(wildcards.seed),
        wildcards.get("protocol"),
    )


def artefact_of(wildcards):
    """The catalogue entry of a file under artefacts/."""
    entries = CATALOGUE.artefacts.values()
    return next(entry for entry in entries if entry.file == wildcards.artefact)


def recipe_of(wildcards):
    return CATALOGUE.recipe(
        CATALOGUE.suite(wildcards.suite).model(wildcards.model).recipe
    )


def method_of(wildcards):
    """The method as it is run on the model's data set."""
    return CATALOGUE.method_on(wildcards.method, wildcards.model)


def protocol_of(wildcards):
    """The protocol a path names, or else the suite's for the model."""
    main = CATALOGUE.suite(wildcards.suite).model(wildcards.model).protocol
    return CATALOGUE.protocol(wildcards.get("protocol", main))


def drawing(wildcards):
    """Digest of what the images of a cell depend on beside its weights.

    The engine counts where it is not the fake-quantized one, and for students only.
    """
    engine = CATALOGUE.suite(wildcards.suite).engine
    own = {} if engine == "fake" or wildcards.method == "fp" else {"engine": engine}
    return digest(protocol_of(wildcards).sampling_fields() | own)


def shards_of(cell):
    shards = CATALOGUE.protocol(cell.protocol).shards
    return [str(LAYOUT.shard(cell, shard)) for shard in range(shards)]


def scores_of(cell):
    """What was measured on a cell's images: values, and their bootstrap replicates."""
    return [LAYOUT.metrics(cell), LAYOUT.replicates(cell)]


def full_precision_cell(wildcards):
    """The cell whose images a student's are paired with: same noise, same labels."""
    return CATALOGUE.suite(wildcards.suite).cell(
        wildcards.model, "fp", Bits(32, 32), 0, wildcards.protocol
    )


def weights_of(wildcards):
    """What a cell samples with: its student, or the teacher itself for full precision."""
    if wildcards.method == "fp":
        return []
    return str(LAYOUT.student(cell_of(wildcards)))


def fp_shards(wildcards):
    return [] if wildcards.method == "fp" else shards_of(full_precision_cell(wildcards))


def checked_baselines(wildcards):
    """Full-precision image sets of a model whose metrics have an expected range."""
    baselines = CATALOGUE.suite(wildcards.suite).model(wildcards.model).baselines
    return [baseline.cell for baseline in baselines if baseline.expect]


def acceptance(wildcards):
    """What must be there before a student of the model is trained."""
    if not checked_baselines(wildcards):
        return []
    return str(LAYOUT.acceptance(wildcards.suite, wildcards.model))


def baseline_cells(wildcards):
    models = CATALOGUE.suite(wildcards.suite).models
    return [baseline.cell for entry in models for baseline in entry.baselines]


def table_cells(wildcards):
    suite = CATALOGUE.suite(wildcards.suite)
    models = table_models(int(wildcards.number), suite, CATALOGUE)
    return [cell for spec in models for cell in suite.model(spec.name).cells]


def quoted_in(number):
    """Printed numbers of a table: the paper's, and what other papers add to it."""
    return [local(f"paper/data/table{number}.csv"), local("paper/data/quoted.csv")]


def report_verb(wildcards):
    """Verb of a report; `methods` alone lists what is registered."""
    return "methods-table" if wildcards.report == "methods" else wildcards.report


def table_inputs(wildcards):
    """Metrics of every cell in the table, and the training record of every student."""
    cells = table_cells(wildcards)
    trained = [cell for cell in cells if cell.method != "fp"]
    paths = [path for cell in cells for path in scores_of(cell)]
    paths += [LAYOUT.training(cell) for cell in trained]
    paths += [LAYOUT.history(cell) for cell in trained]
    shown = {cell.model for cell in cells}
    paths += [
        LAYOUT.acceptance(wildcards.suite, entry.model)
        for entry in CATALOGUE.suite(wildcards.suite).models
        if entry.model in shown and any(part.expect for part in entry.baselines)
    ]
    return [*map(str, paths), *quoted_in(wildcards.number)]


def report_inputs(wildcards):
    """Metrics of every cell that has images, and the training record of every student."""
    paths = []
    for entry in CATALOGUE.suite(wildcards.suite).models:
        paths += [path for cell in entry.scored for path in scores_of(cell)]
        for cell in entry.students:
            paths += [LAYOUT.training(cell), LAYOUT.cost(cell)]
    return [str(path) for path in paths]


def claims_inputs(wildcards):
    """Everything a suite recorded, for its claims are about all of it."""
    paths = []
    for entry in CATALOGUE.suite(wildcards.suite).models:
        paths += [path for cell in entry.scored for path in scores_of(cell)]
        for cell in entry.students:
            paths += [LAYOUT.training(cell), LAYOUT.history(cell)]
        if entry.outliers:
            paths.append(LAYOUT.outliers(wildcards.suite, entry.model))
    sources = [f"paper/data/table{number}.csv" for number in (1, 2, 3, 4)]
    return [*map(str, paths), *map(local, ["paper/claims.yaml", *sources])]


def shown_in_claims(suite):
    """Digest of what the suite's claims take from the catalogue."""
    selected = CATALOGUE.suite(suite)
    methods = {cell.method: CATALOGUE.methods[cell.method] for cell in selected.cells}
    figures = [
        [name, entry]
        for name, entry in selected.figures.items()
        if entry["kind"] in ("channel_maxima", "weight_rotation")
    ]
    return digest(
        [
            [str(cell) for cell in selected.cells],
            [[name, method.title] for name, method in methods.items()],
            figures,
        ]
    )


def page_files(wildcards):
    """What a suite's page shows: results, previews, channel maxima, claims, the paper's numbers."""
    suite = CATALOGUE.suite(wildcards.suite)
    paths = [str(path) for path in page_inputs(Path("."), suite)]
    if suite.tables:
        paths.append(str(LAYOUT.claims(suite.name, "json")))
    return paths + [path for number in suite.tables for path in quoted_in(number)]


def shown_on_page(suite):
    """Digest of what a suite's page takes from the catalogue."""
    selected = CATALOGUE.suite(suite)
    models = [CATALOGUE.models[entry.model].title for entry in selected.models]
    return digest([shown_in_reports(suite), models, selected.tables])


def shown_in_reports(suite):
    """Digest of what the suite's reports take from the catalogue."""
    selected = CATALOGUE.suite(suite)
    methods = {cell.method: CATALOGUE.methods[cell.method] for cell in selected.cells}
    return digest(
        [
            [str(cell) for cell in selected.cells],
            [method.asdict() for method in methods.values()],
            [[one.baseline, one.methods] for one in selected.comparisons],
        ]
    )


def shown_in_figure(wildcards):
    """Digest of a figure's entry; one of differences shows what the suite compares."""
    entry = CATALOGUE.suite(wildcards.suite).figures[wildcards.figure]
    if entry["kind"] != "differences":
        return digest(entry)
    return digest([entry, shown_in_reports(wildcards.suite)])


def figure_kind(wildcards):
    return CATALOGUE.suite(wildcards.suite).figures[wildcards.figure]["kind"]


def figure_group(wildcards):
    """Heading of a figure in the report; the paper's numbers end at 14."""
    number = int(wildcards.figure[3:5])
    return "of the paper" if number <= PAPER_FIGURES else "of this project"


def figure_labels(wildcards):
    """Columns of a figure in the report, such as 02 and channel maxima."""
    stem, _, words = wildcards.figure.partition("_")
    return {
        "suite": wildcards.suite,
        "figure": stem.removeprefix("fig"),
        "what": words.replace("_", " "),
    }


def drawn_from(wildcards):
    """Only what one figure shows, so that it is redrawn only when that changes."""
    suite = CATALOGUE.suite(wildcards.suite)
    return [
        str(path)
        for path in figure_inputs(wildcards.figure, Path("."), suite, CATALOGUE)
    ]


def on_gpu(wildcards):
    """GPUs a job asks for."""
    return 0 if device_of(wildcards) == "cpu" else 1


def device_of(wildcards):
    """The device a job runs on; embedded models take a GPU only when told to."""
    if config["device"] == "auto" and not gpu_sized(wildcards):
        return "cpu"
    return config["device"]


def gpu_sized(wildcards):
    return CATALOGUE.models[wildcards.model].source == "checkpoint"


def lpips_option(wildcards):
    """Option for the weights of LPIPS, which compares a student with full precision."""
    folder = config.get("lpips")
    return (
        f"--lpips {shlex.quote(folder)}" if folder and wildcards.method != "fp" else ""
    )


def scoring_threads(wildcards):
    """Precision and recall of 50 000 images are minutes on eight cores, half an hour on one."""
    return 8 if gpu_sized(wildcards) else 1


def minutes(checkpoint, embedded):
    """Runtime in minutes by the size of the model."""
    return lambda wildcards: checkpoint if gpu_sized(wildcards) else embedded


def memory(checkpoint, embedded):
    """Memory in MB by the size of the model."""
    return lambda wildcards: checkpoint if gpu_sized(wildcards) else embedded


def image_disk(wildcards):
    """Disk in MB of a shard: bytes of its images and latents, and of a trace, if it has one."""
    protocol = protocol_of(wildcards)
    spec = CATALOGUE.models[wildcards.model]
    pixels = 3 * spec.first_stage["ddconfig"]["resolution"] ** 2
    latents = 4 * spec.unet["in_channels"] * spec.unet["image_size"] ** 2
    trace = protocol.trace_images * protocol.steps * latents
    images = protocol.images * (pixels + latents) // protocol.shards
    return 1 + (images + trace) // 10**6
