"""Tar shards, read in place: where in a shard each member lies."""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

SUFFIX = ".tar"

_MOST_LINKS = 40  # that may lead to each other, as in Linux
_BLOCK = 512  # bytes: all of a tar is made of these
_COMPRESSED = {  # first bytes -> what undoes it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}
_COMPRESSED_NAME = re.compile(
    r"\.(?:tar\.(?:gz|bz2|xz|zst|lz4|lzma|z|br)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE
)
IS_COMPRESSED = "is a compressed tar; members are read in place, so decompress it first"


class Member(NamedTuple):
    name: str
    start: int = 0  # byte of the shard
    size: int = 0  # bytes
    fault: str = ""  # why it is left out; start and size mean nothing then


def has_compressed_name(name: str) -> bool:
    return _COMPRESSED_NAME.search(name) is not None


def members(path: Path) -> Iterator[Member]:
    """The files in a tar in the order of their names; first the faults, those of the tar itself
    without a name. Raises OSError.

    Of two members of one name the later one counts, as if the tar were unpacked. A link to a member
    is the member that it leads to.
    """
    with path.open("rb") as file:
        start = file.read(6)
        for magic, undone_by in _COMPRESSED.items():
            if start.startswith(magic):
                yield Member("", fault=f"{IS_COMPRESSED} ({undone_by})")
                return
        size = os.fstat(file.fileno()).st_size
        found: dict[str, Member] = {}
        links: dict[str, str] = {}
        for header in _headers(file, size):
            if isinstance(header, Member):
                yield header
                continue
            name = _plain(header.name)
            if not name and not header.isdir():
                yield Member("", fault="holds a member without a name")
                continue
            if name in found:
                yield Member(name, fault="is there twice in this shard; the later one is used")
            links.pop(name, None)
            if header.issym() or header.islnk():
                folder = posixpath.dirname(name) if header.issym() else ""
                links[name] = _plain(posixpath.normpath(f"{folder}/{header.linkname}"))
            elif not header.isdir():
                found[name] = Member(name, header.offset_data, header.size, _fault(header, size))
    for name in links:
        target = name
        for _ in range(_MOST_LINKS):
            target = links.get(target, target)
        there = found.get(target) or Member("", fault="is a link to nothing in this shard")
        found[name] = there._replace(name=name)
    yield from (found[name] for name in sorted(found))


def _fault(header: tarfile.TarInfo, size: int) -> str:
    if header.issparse():
        return "is stored sparse; pack it without --sparse"
    if not header.isreg():
        return "is neither a file nor a folder nor a link"
    if header.offset_data + header.size > size:
        return "is cut off: the shard ends within it"
    return ""


def _plain(name: str) -> str:
    """Without the ways to begin a name that mean nothing inside a tar."""
    return re.sub(r"^(?:\.{0,2}/+)+", "", name)


def _headers(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo | Member]:
    """Of every tar in the file: some were made by putting several one behind the other."""
    start: int | None = 0
    while start is not None:
        file.seek(start)
        end = 0
        try:
            archive = tarfile.TarFile(fileobj=file, encoding="utf-8")
            while (header := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                end = archive.offset
                if end <= header.offset:
                    raise tarfile.ReadError("negative size")
                yield header
        except OSError:
            raise
        except Exception as error:  # a damaged header makes tarfile fail in many ways
            if end == 0 and start == 0:
                yield Member("", fault=f"is not a tar ({error})")
            elif end <= size:
                yield Member("", fault=f"is damaged ({error}) from byte {end or start} on")
            elif end - _BLOCK < size:
                yield Member("", fault=_CUT_OFF)
            return
        # tarfile says nothing where it meets a header that is none: it ends there as at the end.
        end = archive.offset
        file.seek(end)
        block = file.read(_BLOCK)
        if not block:
            yield Member("", fault=_CUT_OFF)
            return
        if any(block):
            yield Member("", fault=f"is damaged from byte {end} on; what follows is not read")
            return
        start = _next_used_block(file, end)


_CUT_OFF = "is cut off behind a whole member: there is no end mark"


def _next_used_block(file: BinaryIO, start: int) -> int | None:
    """Where the first block from byte `start` on begins that does not hold zeros alone."""
    file.seek(start)
    while chunk := file.read(_BLOCK << 11):
        if any(chunk):
            zeros = len(chunk) - len(chunk.lstrip(b"\0"))
            return start + zeros // _BLOCK * _BLOCK
        start += len(chunk)
    return None
