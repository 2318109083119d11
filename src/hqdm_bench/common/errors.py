"""The one exception a user is meant to read."""

__all__ = ["BenchError"]


class BenchError(Exception):
    """A problem its reader can solve.

    The message is one sentence or two: what is wrong, where, and what to do about it. The console
    command prints it without a traceback and exits with status 2.
    """
