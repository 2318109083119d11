"""The installer: what it takes from pip's configuration, and what it does when uv fails."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTING = """\
:env:.index-url='https://user:secret@mirror.example/simple'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='wheels more-wheels'
global.index-url='https://global.example/simple'
install.cert='ca.pem'
global.cert='other.pem'
freeze.timeout='10'
"""
LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa
uv==2.0 ; sys_platform == 'linux' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
uvloop==3.0 \\
    --hash=sha256:dd
"""


@pytest.fixture(scope="module")
def setup_env() -> ModuleType:
    path = ROOT / "tools" / "setup_env.py"
    spec = importlib.util.spec_from_file_location("tools_setup_env", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pip_settings_follow_pips_precedence(setup_env: ModuleType) -> None:
    assert setup_env.pip_settings(LISTING) == {
        "index-url": "https://user:secret@mirror.example/simple",
        "extra-index-url": "https://one.example/simple\nhttps://two.example/simple",
        "find-links": "wheels more-wheels",
        "cert": "ca.pem",
    }


def test_uv_looks_where_pip_looks(setup_env: ModuleType) -> None:
    variables = setup_env.uv_variables(setup_env.pip_settings(LISTING), {})
    assert variables == {
        "UV_DEFAULT_INDEX": "https://user:secret@mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "wheels,more-wheels",
        "SSL_CERT_FILE": "ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_settings_win(setup_env: ModuleType, name: str) -> None:
    environment = {name: "https://chosen.example", "SSL_CERT_FILE": "mine.pem"}
    variables = setup_env.uv_variables(setup_env.pip_settings(LISTING), environment)
    assert set(variables) == {"UV_FIND_LINKS", "UV_INDEX_STRATEGY"}


def test_locked_block_is_one_package_with_all_hashes(setup_env: ModuleType) -> None:
    assert setup_env.locked_block(LOCK, "uv") == "".join(LOCK.splitlines(keepends=True)[2:5])
    with pytest.raises(setup_env.SetupError, match="make lock"):
        setup_env.locked_block(LOCK, "absent")


def test_the_lock_holds_the_installers(setup_env: ModuleType) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name in ("uv", "hatchling", "editables", *setup_env.BUILD_BACKENDS):
        assert "--hash=sha256:" in setup_env.locked_block(lock, name)


class Recorder:
    """Stands in for an installer: records the ways tried, and fails in the ones named."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.tried = failing, list[str]()

    def attempt(self, name: str) -> None:
        self.tried.append(name)
        if name in self.failing:
            raise subprocess.CalledProcessError(2, [name])

    def pip_listing(self) -> str:
        return ""

    def with_uv(self) -> None:
        self.attempt("uv")

    def with_pip(self) -> None:
        self.attempt("pip")


def test_pip_takes_over_and_says_so(
    setup_env: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    works, falls_back = Recorder(), Recorder("uv")
    setup_env.create(works)
    assert (works.tried, capsys.readouterr().err) == (["uv"], "")
    setup_env.create(falls_back)
    assert falls_back.tried == ["uv", "pip"]
    assert "with pip" in capsys.readouterr().err


def test_failure_of_both_is_an_error(setup_env: ModuleType) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        setup_env.create(Recorder("uv", "pip"))


def test_a_python_without_pip_is_named(setup_env: ModuleType, tmp_path: Path) -> None:
    installer = setup_env.Installer(tmp_path, tmp_path / "v", tmp_path / "b", tmp_path / "lock")
    installer.base = str(tmp_path / "python3")
    script = "#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n"
    (tmp_path / "python3").write_text(script, encoding="utf-8")
    (tmp_path / "python3").chmod(0o755)
    with pytest.raises(setup_env.SetupError, match="No module named pip.*python3-pip"):
        installer.pip_listing()


def test_an_environment_is_reused_only_if_it_runs(setup_env: ModuleType, tmp_path: Path) -> None:
    installer = setup_env.Installer(tmp_path, tmp_path / "v", tmp_path / "b", tmp_path / "lock")
    assert not installer.has_environment()
    installer.python = Path(sys.executable)
    assert installer.has_environment()
