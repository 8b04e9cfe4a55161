"""Where the console command `smnm` begins: outside of the package, whose import takes a second.

Until the package is there, Ctrl-C and an environment that it refuses are one line, not a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _interrupted(number: int, frame: FrameType | None) -> None:
    # An exception would come out of the middle of an import, as whatever that makes of it.
    os.write(2, b"smnm: interrupted before any work\n")
    os._exit(130)


def main() -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it may be ignored
        signal.signal(signal.SIGINT, _interrupted)
    try:
        from smnm_kernels.cli import main as command
    except (ImportError, ValueError) as error:
        # SMNM_BACKEND, SMNM_VECTORS; torch that is missing or too old
        if not str(error).startswith(("SMNM_", "smnm_kernels needs")):
            raise
        print(f"smnm: error: {error}", file=sys.stderr)
        return 2
    return command(loaded=_loaded)


def _loaded() -> None:
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
