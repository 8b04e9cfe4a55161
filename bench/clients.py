"""Runs the adapters inside the codebases that docs/adapters.md names.

Their own models, datasets, collators and training loops run, at sizes that a CPU trains in seconds.
CHECKOUTS holds a checkout of each repository, OWNER+NAME. Folders of packages that they import and
this environment lacks are given with --packages (bench/results/clients.md says which). Each client
runs in a process of its own and prints one line of JSON: what ran, how many tokens their own
masking and ours leave visible, and the losses.
"""

import argparse
import collections.abc
import json
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import audio_clients  # noqa: F401, registers its clients
import image_clients  # noqa: F401
import numpy as np
import torch
import video_clients  # noqa: F401
from client_common import CLIENTS, stub


def run_here(name, checkouts, packages):
    """One client, in this process."""
    repository, timm, run = CLIENTS[name]
    folder = checkouts / repository if repository else None
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
    first = [p for p in packages if p.name == f"timm-{timm}"]
    last = [p for p in packages if not p.name.startswith("timm-")]
    sys.path[0:1] = [*([str(folder)] if folder else []), *map(str, first)]
    sys.path += map(str, last)
    six = sys.modules["torch._six"] = types.ModuleType("torch._six")
    six.container_abcs, six.string_classes, six.inf = collections.abc, str, float("inf")
    vars(np).update(float=float, int=int)  # as in the NumPy of their time
    unneeded = ("tensorboardX", "simplejson", "decord", "cv2", "submitit", "wandb")
    stub(*(name for name in unneeded if find_spec(name) is None), "numpy.lib.function_base")
    torch.manual_seed(0)
    return {"client": name, "repository": repository, **run(folder)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--packages", type=Path, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--here", action="store_true", help="in this process, for one client")
    options = parser.parse_args()
    if options.here:
        [name] = options.only
        row = run_here(name, options.checkouts.absolute(), [p.absolute() for p in options.packages])
        print("ROW " + json.dumps(row))
        return
    for name in options.only:
        command = [sys.executable, __file__, str(options.checkouts), "--here", "--only", name]
        packages = ["--packages", *map(str, options.packages)] if options.packages else []
        done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
        rows = [line[4:] for line in done.stdout.splitlines() if line.startswith("ROW ")]
        last = done.stderr.strip().splitlines()[-1:] or ["no error"]
        print(rows[0] if rows else json.dumps({"client": name, "failed": last[0]}), flush=True)


if __name__ == "__main__":
    main()
