"""Why one source of a file failed; the caller tries again, tries the next, or tells the user."""

__all__ = ["Interrupted", "Mismatch", "Refused"]


class Refused(Exception):  # noqa: N818
    """This source cannot give the file; the message is the reason, to be shown beside its URL."""


class Mismatch(Refused):
    """The file is whole but is not the one whose digest is known."""


class Interrupted(Exception):  # noqa: N818
    """Asking the same source again may help.

    Attributes:
        wait: seconds it asked to wait, if it did.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
