"""The console command `smnm`.

Each subcommand has a dataclass of options, which tyro fills from the command line, and a function
that takes it. Modules are imported when their subcommand runs, so that help comes at once.
"""

from __future__ import annotations

import io
import os
import pkgutil
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, TextIO


class Command(NamedTuple):
    #: "module:name" of the dataclass of its options.
    options: str
    #: "module:name" of the function that takes the options.
    function: str
    summary: str


_TRAIN = "smnm_kernels.train"
COMMANDS = {
    "pretrain": Command(
        f"{_TRAIN}.tasks.options:Pretrain",
        f"{_TRAIN}.tasks.pretrain:pretrain",
        "pretrain an encoder on a folder of video, audio or image files",
    ),
    "probe": Command(
        f"{_TRAIN}.tasks.probe_options:Probe",
        f"{_TRAIN}.tasks.probe:probe",
        "measure what can be read from the frozen features of an encoder",
    ),
    "segment": Command(
        f"{_TRAIN}.tasks.segment:Segment",
        f"{_TRAIN}.tasks.segment:segment",
        "compare clusters of an encoder's features with the objects of annotated videos",
    ),
    "retrieve": Command(
        f"{_TRAIN}.tasks.retrieve:Retrieve",
        f"{_TRAIN}.tasks.retrieve:retrieve",
        "measure how well sounds find the pictures that belong to them, and the other way round",
    ),
    "finetune": Command(
        f"{_TRAIN}.tasks.finetune_options:Finetune",
        f"{_TRAIN}.tasks.finetune:finetune",
        "fine-tune an encoder on labelled files, and evaluate it",
    ),
    "predict": Command(
        f"{_TRAIN}.tasks.predict:Predict",
        f"{_TRAIN}.tasks.predict:predict",
        "let a fine-tuned model say what files are",
    ),
    "demo": Command(
        f"{_TRAIN}.tasks.demo:Demo",
        f"{_TRAIN}.tasks.demo:demo",
        "make a few files and pretrain on them",
    ),
    "export": Command(
        f"{_TRAIN}.tasks.export:Export",
        f"{_TRAIN}.tasks.export:export",
        "write a trained model as a folder that transformers, timm or MAE's code loads",
    ),
    "inspect": Command(
        f"{_TRAIN}.tasks.inspect:Inspect",
        f"{_TRAIN}.tasks.inspect:inspect",
        "say what the trainer sees in files, and which it cannot use",
    ),
    "spectrum": Command(
        f"{_TRAIN}.tasks.spectrum:Spectrum",
        f"{_TRAIN}.tasks.spectrum:spectrum",
        "show where the energy of files lies, beside that of masks",
    ),
    "study": Command(
        f"{_TRAIN}.tasks.study:Study",
        f"{_TRAIN}.tasks.study:study",
        "train and measure encoders for all masks and seeds of a plan, and report",
    ),
    "bench": Command(
        "smnm_kernels.timing.command:Bench",
        "smnm_kernels.timing.command:Bench.run",
        "measure mask making against what training code does without it",
    ),
    "show": Command(
        "smnm_kernels.pictures.show:Show",
        "smnm_kernels.pictures.show:Show.run",
        "show masks and their power spectra in a picture",
    ),
}


def main(arguments: Sequence[str] | None = None, loaded: Callable[[], None] = lambda: None) -> int:
    """Run `smnm ARGUMENTS`; returns the exit code. `loaded` is called when the modules of the
    command are imported and its work begins.

    0 done, 1 a run that was going failed, 2 refused before any work, 130 and 143 stopped by Ctrl-C
    and SIGTERM, 141 where the reader of the output went away (`smnm --help | head -3`).
    """
    for stream in (sys.stdout, sys.stderr):  # files have names that not every output can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments, loaded)
        except KeyboardInterrupt:
            print("smnm: interrupted; what was saved last is whole", file=sys.stderr)
            return 128 + signal.SIGINT
        finally:
            if sys.stdout:  # None where the command was started with a closed output
                sys.stdout.flush()  # while Python exits, an error could not be caught
    except BrokenPipeError:
        outputs = (stream for stream in (sys.stdout, sys.stderr) if stream)
        without_reader = [stream for stream in outputs if _lost_its_reader(stream)]
        if not without_reader:
            raise  # another pipe broke, such as one to a process that reads files
        for stream in without_reader:  # when Python exits, it writes what is left once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 128 + signal.SIGPIPE  # as shells report a program that the signal has ended


def _lost_its_reader(stream: TextIO) -> bool:
    """Whether it is a pipe of which nobody reads any more."""
    poll = select.poll()
    # Errors are reported without being asked for, but on macOS not to who asks for nothing.
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(arguments: Sequence[str] | None, loaded: Callable[[], None]) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"smnm_kernels {version('smnm_kernels')}")
        return 0
    if "" in arguments:
        return _refuse("an argument is empty, as of a shell variable that is not set")
    name, *rest = arguments
    if name not in COMMANDS:
        return _refuse(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    try:
        from smnm_kernels.errors import RunError, UsageError
        from smnm_kernels.refusals import parsed

        options_type = _load(command.options)
    except ImportError as error:
        return _missing(error, name)
    try:
        options: Any = parsed(options_type, f"smnm {name}", rest)
        function = _load(command.function)
        loaded()
        return function(options) or 0
    except ImportError as error:
        return _missing(error, name)
    except UsageError as error:
        return _refuse(str(error))
    except RunError as error:
        print(f"smnm: error: {error}", file=sys.stderr)
        return 1


def _load(place: str) -> Any:
    """What "module:name" stands for."""
    return pkgutil.resolve_name(place)


def _usage() -> str:
    lines = ["usage: smnm COMMAND ...", ""]
    lines += [f"  smnm {name:<10}{command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "`smnm COMMAND --help` lists a command's options."]
    return "\n".join(lines)


def _refuse(message: str) -> int:
    print(f"smnm: error: {message}", file=sys.stderr)
    return 2


def _missing(error: ImportError, command: str) -> int:
    """Reports a package that is not installed in one line; raises any other import error again."""
    missing = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or missing == "smnm_kernels":
        raise error
    if missing == "torch":
        return _refuse("torch is not installed: pip install 'torch>=2.10'")
    extra = "bench" if command == "bench" else "train"
    return _refuse(f"{missing} is not installed: pip install 'smnm_kernels[{extra}]'")


if __name__ == "__main__":
    sys.exit(main())
