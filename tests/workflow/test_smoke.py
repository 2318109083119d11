"""The whole smoke DAG, for real: every rule, every kind of output."""

import csv
import json

import numpy as np
import yaml

from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.integer import choose_kernel
from hqdm_bench.integer.onednn import OneDNNKernel

OBSTACLES = {
    "efficientdm": "zero-point",
    "tfmq": "its input is not quantized",
    "quest": "a step size of its own",
    "dmq": "scaled in floating point",
}


def cells(project):
    return load_catalogue(project.folder).suite("smoke").cells


def test_every_table_and_figure_is_there(smoke):
    suite = load_catalogue(smoke.folder).suite("smoke")
    layout = Layout(smoke.folder)
    for number in suite.tables:
        for suffix in ("csv", "md", "tex"):
            assert layout.table("smoke", number, suffix).stat().st_size > 100
    for name in suite.figures:
        assert layout.figure("smoke", name, "pdf").read_bytes().startswith(b"%PDF")
        assert layout.figure("smoke", name, "png").read_bytes().startswith(b"\x89PNG")


def test_metrics_carry_their_whole_protocol(smoke):
    layout = Layout(smoke.folder)
    catalogue = load_catalogue(smoke.folder)
    for cell in cells(smoke):
        metrics = json.loads(layout.metrics(cell).read_text())
        assert metrics["protocol"] == catalogue.protocol(cell.protocol).asdict()
        assert metrics["cell"] == cell.asdict()
        assert len(metrics["extractor"]["sha256"]) == 64
        assert all(np.isfinite(list(metrics["values"].values())))
        assert (metrics["paired"] is None) == (cell.method == "fp")


def test_students_draw_in_integers_where_that_is_exact(smoke):
    """What cannot be integer as its authors release it stays fake-quantized and says why."""
    layout = Layout(smoke.folder)
    exact = choose_kernel("auto")[0] is OneDNNKernel
    for cell in cells(smoke):
        engine = json.loads(layout.metrics(cell).read_text())["engine"]
        beside = layout.shard(cell, 0).with_suffix(".engine.json")
        if cell.method == "fp":
            assert engine is None
            assert not beside.exists()
            continue
        integer = exact and (cell.method.startswith("hqdm") or cell.method == "ptqd")
        assert engine["engine"] == ("integer" if integer else "fake")
        if exact and not integer:
            assert OBSTACLES[cell.method] in engine["why"]
        assert json.loads(beside.read_text()).items() >= engine.items()


def test_methods_see_the_same_labels_and_only_students_differ(smoke):
    layout = Layout(smoke.folder)
    first = {}
    for cell in cells(smoke):
        shard = np.load(layout.shard(cell, 0), allow_pickle=False)
        reference = first.setdefault(cell.model, shard)
        assert np.array_equal(shard["arr_1"], reference["arr_1"])
        assert np.array_equal(shard["index"], reference["index"])
        if shard is not reference:
            assert not np.array_equal(shard["arr_0"], reference["arr_0"])


def test_histories_have_one_row_per_update(smoke):
    layout = Layout(smoke.folder)
    catalogue = load_catalogue(smoke.folder)
    suite = catalogue.suite("smoke")
    for cell in cells(smoke):
        if cell.method == "fp":
            continue
        with layout.history(cell).open() as file:
            rows = list(csv.DictReader(file))
        if catalogue.method(cell.method).work is not None:
            assert not rows  # calibrated, not trained
            continue
        assert len(rows) == catalogue.recipe(suite.model(cell.model).recipe).updates
        assert rows[0]["timestep"] == "901"
        assert rows[-1]["timestep"] == "1"


def test_no_checkpoint_or_temporary_file_is_left(smoke):
    left = [
        path
        for path in (smoke.folder / "results").rglob("*")
        if ".tmp" in path.name or path.name.startswith("checkpoint")
    ]
    assert left == []


def test_second_run_is_a_no_op(smoke):
    run = smoke.snakemake("--cores", "2", "smoke")
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout + run.stderr


def changed_rules(project, edit, file="methods.yaml"):
    """Jobs a dry run plans after `edit`, as (rule, wildcards); configuration is put back after."""
    path = project.folder / "config" / file
    before = path.read_text()
    stamp = path.stat().st_mtime_ns
    try:
        value = yaml.safe_load(before)
        edit(value)
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        lines = project.planned("smoke")
    finally:
        path.write_text(before)
        assert path.stat().st_mtime_ns >= stamp
    jobs, rule = [], None
    for line in lines:
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
        elif line.strip().startswith("wildcards:"):
            jobs.append((rule, line.split("wildcards:")[1].strip()))
    return jobs


def test_changing_one_methods_option_reruns_only_its_cells(smoke):
    def edit(value):
        value["hqdm-k3"]["options"]["order"] = 4

    jobs = changed_rules(smoke, edit)
    trained = [wildcards for rule, wildcards in jobs if rule == "train_student"]
    assert len(trained) == 1
    assert "method=hqdm-k3" in trained[0]
    own = {"train_student", "sample_shard", "evaluate_cell"}
    assert {rule for rule, _ in jobs} == own | {"table", "report_table", "claims", "suite_page"}
    assert all("hqdm-k3" in wildcards for rule, wildcards in jobs if rule in own)


def test_changing_how_images_are_scored_does_not_draw_them_again(smoke):
    def edit(value):
        value["smoke-imagenet"]["pr_k"] = 2

    jobs = changed_rules(smoke, edit, "protocols.yaml")
    rules = {rule for rule, _ in jobs}
    assert "evaluate_cell" in rules
    assert not rules & {"sample_shard", "train_student"}
    redrawn = {text.split("figure=")[1].split("_")[0] for rule, text in jobs if rule == "figure"}
    assert redrawn == {"fig17", "fig18", "fig19"}


def test_a_damaged_result_is_named_and_nothing_else_is_lost(smoke):
    layout = Layout(smoke.folder)
    cell = cells(smoke)[1]
    shard, metrics = layout.shard(cell, 0), layout.metrics(cell)
    whole = shard.read_bytes()
    # Snakemake removes what a failed job was to make.
    kept = {path: path.read_bytes() for path in metrics.parent.iterdir() if path.is_file()}
    shard.write_bytes(whole[: len(whole) // 2])
    try:
        run = smoke.snakemake("--cores", "2", str(metrics.relative_to(smoke.folder)))
        log = next((smoke.folder / "logs").rglob("evaluate.log"))
        text = "".join(
            path.read_text()
            for path in (smoke.folder / "logs" / "smoke" / cell.model / cell.method).rglob(
                "evaluate.log"
            )
        )
        assert log.exists()
        assert run.returncode != 0
        assert "shard0.npz is not a whole sample shard" in text
        assert "Traceback" not in text
    finally:
        shard.write_bytes(whole)
        for path, content in kept.items():
            path.write_bytes(content)
