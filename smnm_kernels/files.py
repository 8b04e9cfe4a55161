"""Writing a file so that it is never left half written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# What the system says where something was lost. Other errors of a sync mean that the file system
# knows no sync of such a thing, as many network file systems do of a folder.
_LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}
_REASONS = {
    errno.ENOSPC: "the disk is full, make room there",
    errno.EDQUOT: "the quota of disk space is used up, make room there",
}


def reason(error: OSError) -> str:
    """Why a file could not be written or read, in words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def sync(descriptor: int) -> None:
    """Have the system bring a file or folder to disk, as far as the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _LOST:
            raise


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to disk, as far as the file system can."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # such as one that may be written but not listed
        return
    try:
        sync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to. When the block ends without an error, it replaces the file at
    ``path``, whole and on disk; otherwise ``path`` stays as it was. An OSError names a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except Exception as error:
        cause = _of_the_system(error)
        if cause is None:
            raise
        cause.filename = cause.filename or str(path)
        raise cause from None
    finally:
        temporary.unlink(missing_ok=True)


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The OSError that led to an error. torch.save, for one, hides that of a full disk behind a
    RuntimeError ("unexpected pos")."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
