"""Create the project's virtual environment from the hashed lock file.

Needs a Python >= 3.11 with pip and nothing else. Every file that is installed, the installer and
the build backends included, is checked against the hashes of the lock. uv does the work; it gets
the index settings of the user's pip configuration, which it would not read by itself. If uv cannot
be had or fails, pip installs the same locked files.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MINIMUM_PYTHON = (3, 11)

# Locked packages without a wheel are built with this backend, inside the environment, so that
# the builds use the locked backend instead of whatever the index serves that day.
BUILD_BACKENDS = ("setuptools",)

# pip option -> variable that means the same to uv.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
COMMA_SEPARATED = {"UV_FIND_LINKS"}
UV_INDEX_VARIABLES = {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"}


class SetupError(Exception):
    """The environment cannot be created; the message says what to do."""


def say(message: str) -> None:
    """Write one line of progress to stderr."""
    sys.stderr.write(f"setup: {message}\n")
    sys.stderr.flush()


def pip_settings(listing: str) -> dict[str, str]:
    """Effective options of `pip install`, read from the output of `pip config list`.

    The environment wins over an `[install]` section, which wins over `[global]`.
    """
    rank = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(['\"].*['\"])", line.strip())
        if match is None:
            continue
        section, option, literal = match.groups()
        if option not in found or rank[section] >= found[option][0]:
            found[option] = (rank[section], str(ast.literal_eval(literal)))
    return {option: value for option, (_, value) in found.items()}


def uv_variables(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make uv look where pip would; what the user has set for uv stays.

    Args:
        settings: Result of `pip_settings`.
        environment: The variables of the process.
    """
    chosen_index = UV_INDEX_VARIABLES & environment.keys()
    variables: dict[str, str] = {}
    for option, name in PIP_TO_UV.items():
        if option not in settings or name in environment:
            continue
        if chosen_index and name in UV_INDEX_VARIABLES:
            continue
        separator = "," if name in COMMA_SEPARATED else " "
        variables[name] = separator.join(settings[option].split())
    # pip considers all indexes at once; the hashes decide which file is the right one.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **variables}


def locked_block(lock: str, package: str) -> str:
    """The lines of one package in a hashed lock: its pin and its hashes."""
    match = re.search(rf"^{re.escape(package)}==.*\n(?:[ \t]+--hash=.*\n?)+", lock, re.MULTILINE)
    if match is None:
        raise SetupError(f"{package} is not in the lock; run `make lock` and commit the result")
    return match.group()


@contextmanager
def requirements_file(lock: Path, packages: Sequence[str]) -> Iterator[Path]:
    """A temporary requirements file with the locked blocks of some packages."""
    text = lock.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="setup-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("".join(locked_block(text, name) for name in packages), encoding="utf-8")
        yield path


class Installer:
    """Commands that fill one virtual environment from one lock."""

    def __init__(self, root: Path, venv: Path, bootstrap: Path, lock: Path) -> None:
        self.root, self.venv, self.bootstrap, self.lock = root, venv, bootstrap, lock
        self.python = venv / "bin" / "python"
        # Inside an activated environment the interpreter that made it is the one that has pip.
        self.base = str(getattr(sys, "_base_executable", None) or sys.executable)
        # A user-wide `user = true` or `require-virtualenv = true` would refuse a private folder.
        self.environment = {
            **os.environ,
            "PIP_USER": "0",
            "PIP_REQUIRE_VIRTUALENV": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def run(self, *command: str | Path, extra: Mapping[str, str] | None = None) -> None:
        """Run one command in the repository root; its output goes through."""
        environment = {**self.environment, **(extra or {})}
        subprocess.run([str(part) for part in command], check=True, cwd=self.root, env=environment)

    def pip_listing(self) -> str:
        """Output of `pip config list`, or an error that says how to get pip."""
        command = [self.base, "-m", "pip", "config", "list"]
        answer = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if answer.returncode != 0:
            raise SetupError(
                f"{self.base} has no working pip ({answer.stderr.strip() or 'no message'}); install"
                " it (Debian and Ubuntu: python3-pip) or name another interpreter:"
                " make setup PYTHON=/path/to/python3"
            )
        return answer.stdout

    def install_uv(self) -> Path:
        """Install the locked uv in a private folder with pip; returns the program."""
        uv = self.bootstrap / "bin" / "uv"
        stamp = self.bootstrap / "requirements.txt"
        wanted = locked_block(self.lock.read_text(encoding="utf-8"), "uv")
        if uv.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return uv
        shutil.rmtree(self.bootstrap, ignore_errors=True)
        with requirements_file(self.lock, ["uv"]) as path:
            pip = (self.base, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps")
            self.run(*pip, "--target", self.bootstrap, "-r", path)
        stamp.write_text(wanted, encoding="utf-8")
        return uv

    def has_environment(self) -> bool:
        """True if the environment exists and runs a Python that is new enough."""
        check = f"import sys; sys.exit(sys.version_info < {MINIMUM_PYTHON})"
        try:
            return subprocess.run([str(self.python), "-c", check]).returncode == 0
        except OSError:
            return False

    def with_uv(self) -> None:
        """Fill the environment with uv: exactly the lock, then the project itself."""
        extra = uv_variables(pip_settings(self.pip_listing()), os.environ)
        uv = self.install_uv()
        if not self.has_environment():
            self.run(uv, "venv", "--quiet", "--clear", "--python", self.base, self.venv)
        target = ("--python", self.python)
        install = (uv, "pip", "install", *target, "--no-deps")
        sync = (uv, "pip", "sync", *target, "--require-hashes", "--no-build-isolation")
        with requirements_file(self.lock, BUILD_BACKENDS) as path:
            self.run(*install, "--quiet", "--require-hashes", "-r", path, extra=extra)
        self.run(*sync, self.lock, extra=extra)
        project = ("--no-build-isolation", "--offline", "--editable", self.root)
        self.run(*install, *project, extra=extra)

    def with_pip(self) -> None:
        """Fill a new environment with the pip of the base interpreter, from the same lock."""
        self.run(self.base, "-m", "venv", "--without-pip", "--clear", self.venv)
        pip = (self.base, "-m", "pip", "--python", self.python, "install")
        with requirements_file(self.lock, BUILD_BACKENDS) as path:
            self.run(*pip, "--quiet", "--require-hashes", "--no-deps", "-r", path)
        build = ("--no-build-isolation", "--use-pep517")
        self.run(*pip, *build, "--require-hashes", "--no-deps", "-r", self.lock)
        self.run(*pip, "--no-deps", "--no-build-isolation", "--editable", self.root)


def create(installer: Installer) -> None:
    """Fill the environment with uv, or with pip if that fails."""
    installer.pip_listing()
    try:
        installer.with_uv()
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"uv did not succeed ({error}); installing the same locked files with pip")
        installer.with_pip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `setup_env.py [--venv DIR] [--bootstrap DIR]`."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description="Create the virtual environment from the lock.")
    parser.add_argument("--venv", type=Path, default=root / ".venv")
    parser.add_argument("--bootstrap", type=Path, default=root / ".venv-bootstrap")
    options = parser.parse_args(arguments)
    venv, bootstrap = options.venv.absolute(), options.bootstrap.absolute()
    say(f"installing requirements.lock in {venv}")
    try:
        create(Installer(root, venv, bootstrap, root / "requirements.lock"))
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"error: the installation failed ({error}); the messages above say why")
        say("`make setup` continues; indexes are set by pip's configuration or UV_* variables")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
