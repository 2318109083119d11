"""What a downloaded file must look like from outside; nothing in it is decoded or executed."""

import html
import re
import zipfile
from pathlib import Path, PurePosixPath

from hqdm_bench.artefacts.faults import Refused

__all__ = ["check_format", "is_content", "markup_page"]

MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
HEAD_BYTES = 65536  # enough for the title of an error page
TITLE_LENGTH = 80
ZIP_MAGIC = b"PK"
PICKLE_PROTOCOL = b"\x80"  # first byte of torch's format before 1.6
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
EXPECTED = {
    "checkpoint": "a torch checkpoint, or a zip archive that holds one .ckpt file",
    "reference": "an .npz file with an array arr_0",
    "weights": "a torch state dict",
    "images": "a zip archive that holds an LMDB (data.mdb) or image files",
}


def markup_page(head: bytes) -> str | None:
    """A description of the page if a file starts like HTML or XML, else None.

    Args:
        head: its first bytes; a title beyond them is not seen.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:16].lower()
    if not start.startswith(MARKUP):
        return None
    kind = "an XML document" if start.startswith((b"<?xml", b"<error")) else "an HTML page"
    text = head.decode("utf-8", errors="replace")
    title = re.search(r"<(title|message|code)\b[^>]*>(.*?)</\1", text, re.IGNORECASE | re.DOTALL)
    if not title:
        return kind
    words = " ".join(html.unescape(title[2]).split())[:TITLE_LENGTH]
    return f"{kind} titled '{''.join(letter for letter in words if letter.isprintable())}'"


def check_format(kind: str, path: Path) -> None:
    """Check a file's container by its first bytes and, of a zip archive, its list of members.

    Args:
        kind: of the artefact, see :class:`~hqdm_bench.catalogue.ArtefactSpec`.
        path: the file.

    Raises:
        Refused: it is a page, a truncated archive, or something else than ``kind`` asks for.
    """
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    page = markup_page(head)
    if page:
        raise Refused(f"it is {page}, not {EXPECTED[kind]}")
    if head.startswith(ZIP_MAGIC):
        _check_members(kind, _members(path))
    elif kind not in ("checkpoint", "weights") or not head.startswith(PICKLE_PROTOCOL):
        start = head[:8].hex(" ") or "nothing"
        raise Refused(f"it is not {EXPECTED[kind]}; it starts with {start}")


def is_content(member: str) -> bool:
    """Whether a member of a zip archive is a file, and not one that macOS adds beside each file."""
    return not member.endswith("/") and not PurePosixPath(member).name.startswith("._")


def _members(path: Path) -> list[PurePosixPath]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [PurePosixPath(name) for name in archive.namelist() if is_content(name)]
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise Refused(
            f"it is a truncated or damaged zip archive ({str(error).rstrip('.').lower()}: the list "
            "of members, at the end of the file, cannot be read)"
        ) from error


def _check_members(kind: str, members: list[PurePosixPath]) -> None:
    names = [member.name for member in members]
    torch_archive = any(member.name == "data.pkl" for member in members)
    checkpoints = sum(member.suffix == ".ckpt" for member in members)
    fits = {
        "checkpoint": torch_archive or checkpoints == 1,
        "reference": PurePosixPath("arr_0.npy") in members,
        "weights": torch_archive,
        "images": "data.mdb" in names
        or any(member.suffix.lower() in IMAGE_SUFFIXES for member in members),
    }
    if not fits[kind]:
        shown = ", ".join(map(str, members[:4])) + (", ..." if len(members) > 4 else "")
        raise Refused(f"it is a zip archive of {shown or 'nothing'}, not {EXPECTED[kind]}")
