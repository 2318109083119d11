"""Profiles name options that Snakemake and its plugins have, and rules that the workflow has."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.cli import parse_args
from snakemake_executor_plugin_kubernetes import Executor as Kubernetes
from snakemake_executor_plugin_kubernetes import PersistentVolume

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ("default", "slurm", "kubernetes")
# What must be the same wherever the workflow runs.
SHARED = ("keep-going", "rerun-incomplete", "rerun-triggers", "show-failed-logs")


def profile(name: str) -> Path:
    return ROOT / "profiles" / name / "profile.v9+.yaml"


def parsed(folder: Path, name: str, monkeypatch):
    """What Snakemake makes of a profile; an unknown key ends it."""
    monkeypatch.chdir(folder)
    return parse_args(["--dry-run", "--workflow-profile", f"profiles/{name}", "smoke"])[1]


@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_knows_every_key(name, monkeypatch):
    arguments = parsed(ROOT, name, monkeypatch)
    for key, value in yaml.safe_load(profile(name).read_text(encoding="utf-8")).items():
        taken = getattr(arguments, key.replace("-", "_"))
        assert taken is not None, key
        if isinstance(value, bool | int | str):
            assert str(taken) == str(value), key
    assert arguments.executor == (None if name == "default" else name)


def test_an_unknown_key_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "Snakefile").touch()
    path = tmp_path / "profiles" / "slurm" / "profile.v9+.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(profile("slurm").read_text(encoding="utf-8") + "slurm-acount: mine\n")
    with pytest.raises(SystemExit):
        parsed(tmp_path, "slurm", monkeypatch)
    assert "unrecognized arguments: --slurm-acount=mine" in capsys.readouterr().err


@pytest.mark.parametrize("key", SHARED)
def test_profiles_agree_on_what_a_run_is(key):
    values = [yaml.safe_load(profile(name).read_text(encoding="utf-8"))[key] for name in PROFILES]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_examples_in_comments_name_rules_of_the_workflow(name):
    text = profile(name).read_text(encoding="utf-8")
    lines = text[text.index("# set-resources:") :].splitlines()
    block = []
    for line in lines[1:]:
        if not line.startswith("#   "):
            break
        block.append(line[2:])
    smk = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", smk, flags=re.M))
    assert set(yaml.safe_load("\n".join(block))) <= rules


def test_slurm_plans_the_suite_with_the_profile(tmp_path):
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for name in ("config", "workflow", "paper", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    scripts = str(Path(sys.executable).parent)
    run = subprocess.run(
        ["snakemake", "--workflow-profile", "profiles/slurm", "--dry-run", "smoke"],
        cwd=tmp_path,
        env={**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "Using workflow specific profile profiles/slurm" in run.stdout + run.stderr


def pod(resources):
    """The pod that the plugin would ask for; the cluster is a list."""
    asked = []
    executor = Kubernetes.__new__(Kubernetes)
    executor.logger = SimpleNamespace(debug=lambda *_: None, info=lambda *_: None)
    executor.format_job_exec = lambda job: "true"
    executor.report_job_submission = lambda job: None
    executor.run_namespace, executor.namespace = "run", "default"
    executor.container_image, executor.privileged = "image", False
    executor.k8s_cpu_scalar, executor.k8s_service_account_name = 0.95, None
    executor.secret_envvars, executor.lock = {}, threading.Lock()
    executor.persistent_volumes = [PersistentVolume("hqdm-bench", Path("/hqdm-bench"))]
    executor.batchapi = SimpleNamespace(
        create_namespaced_job=lambda namespace, body: asked.append(body)
    )
    job = SimpleNamespace(jobid=1, attempt=1, resources=resources, is_containerized=False)
    executor.run_job(job)
    return asked[0].spec.template.spec


@pytest.mark.parametrize("gpus", [0, 1])
def test_pods_limit_the_gpus_they_request(gpus):
    """Kubernetes refuses a request of GPUs without the same limit."""
    defaults = yaml.safe_load(profile("kubernetes").read_text(encoding="utf-8"))
    resources = (
        pod(defaults["default-resources"] | {"gpu": gpus, "_cores": 1}).containers[0].resources
    )
    assert resources.requests["nvidia.com/gpu"] == str(gpus)
    assert resources.limits["nvidia.com/gpu"] == str(gpus)
    assert resources.limits["memory"] == resources.requests["memory"]
