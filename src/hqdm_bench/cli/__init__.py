"""The console command ``hqdm-bench``: verbs only, one per kind of file the workflow makes."""

from hqdm_bench.cli.main import main

__all__ = ["main"]
