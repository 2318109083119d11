"""The verb that says what a suite takes before anything runs."""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from hqdm_bench.artefacts import artefact_status, read_lock
from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.catalogue.costs import load_costs
from hqdm_bench.catalogue.jobs import Jobs
from hqdm_bench.catalogue.plan import Plan, Timing, make_plan
from hqdm_bench.cli.plan_page import Download, plan_json, plan_page
from hqdm_bench.cli.preflight import obstacles
from hqdm_bench.common.errors import BenchError

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    plan = verbs.add_parser("plan", help="jobs, hours, disk and downloads of a suite")
    plan.add_argument("suite", help="suite of config/suites, such as paper")
    plan.add_argument(
        "--device", metavar="NAME", help="only devices with this in their name, such as H200"
    )
    plan.add_argument("--json", action="store_true", help="as JSON, in seconds and bytes")
    plan.add_argument(
        "--check",
        action="store_true",
        help="also ask for a GPU and for the files' addresses, as a run does before its first "
        "job; fails if one is missing",
    )
    plan.add_argument(
        "--root", type=Path, default=Path(), help="project folder (default: the current one)"
    )
    plan.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> None:
    root: Path = arguments.root
    catalogue = load_catalogue(root)
    suite = catalogue.suite(arguments.suite)
    costs = load_costs(root)

    plan = make_plan(catalogue, suite, costs, root)
    timings = _timings(plan, arguments.device)
    downloads = _downloads(plan.jobs, Layout(root))
    free = shutil.disk_usage(root).free
    if arguments.json:
        print(json.dumps(plan_json(plan, costs, timings, downloads, free), indent=2))
    else:
        print(plan_page(plan, costs, timings, downloads, free))
    if arguments.check:
        _check(plan, Layout(root))


def _timings(plan: Plan, device: str | None) -> Sequence[Timing]:
    """Devices that suit the suite: embedded models are not for GPUs."""
    suitable = [
        timing for timing in plan.timings if plan.checkpoints or timing.basis != "estimated"
    ]
    if device is None:
        return suitable
    named = [timing for timing in plan.timings if device.lower() in timing.device.lower()]
    if not named:
        known = ", ".join(dict.fromkeys(timing.device for timing in plan.timings))
        raise BenchError(
            f"nothing is known of a device '{device}'; known: {known}; "
            "`python benchmarks/unit_costs.py` measures this machine"
        )
    return named


def _downloads(jobs: Jobs, layout: Layout) -> list[Download]:
    lock = read_lock(layout.artefact_lock)
    return [
        Download(
            spec.name,
            spec.title,
            spec.bytes or spec.about_bytes,
            spec.bytes is not None,
            artefact_status(spec, layout.artefact(spec), lock),
            str(layout.artefact(spec)),
        )
        for spec in jobs.artefact_specs
    ]


def _check(plan: Plan, layout: Layout) -> None:
    found = obstacles(layout, plan.jobs.artefact_specs, plan.jobs.gpu_jobs)
    if found:
        raise BenchError("\n".join(["this machine cannot run it.", *found]))
