"""Where the bytes of one video, recording or picture are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Source:
    """A file, or a part of one, such as a member of a tar shard."""

    path: Path
    start: int = 0  # byte
    size: int | None = None  # bytes; None: the whole file

    @property
    def url(self) -> str:
        """What FFmpeg opens."""
        # "file:" also for names that look like another protocol, such as "http:a.mp4".
        if self.size is None:
            return f"file:{self.path}"
        return f"subfile,,start,{self.start},end,{self.start + self.size},,:file:{self.path}"

    def open(self) -> BinaryIO:
        """A file to read from, that can be sought in."""
        if self.size is None:
            return self.path.open("rb")
        with self.path.open("rb") as file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))
