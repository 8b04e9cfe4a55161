"""Small labelled data in all the forms in which people have them."""

import io
import json
import tarfile

from pairs import Pairs

from smnm_kernels.train.data.label_columns import LabelSettings
from smnm_kernels.train.data.labelled import LabelledFiles
from smnm_kernels.train.data.scan import scan

MP4 = frozenset([".mp4"])


class Clips(Pairs):
    """Files of which each holds a number."""

    suffixes = MP4
    probed = {}  # noqa: RUF012


CLIPS = Clips(16)


def write_files(folder, *names, content="1"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


def found(data, **settings):
    """The labels, of which those of usable files suffice."""
    return scanned(data, **settings)[0]


def scanned(data, **settings):
    """(the labels, the listing, what is said of them)"""
    finder = LabelledFiles(data, LabelSettings(**settings))
    listing = scan(finder, CLIPS, None, 1)
    return listing.labels, listing, listing.remarks + listing.found.judged(listing.usable)


def by_name(data, **settings):
    """{name: (class or classes or number, split)} of the usable files."""
    labels, listing, _ = scanned(data, **settings)
    names = labels.names

    def named(label):
        if labels.kind == "number":
            return label
        return names[label] if isinstance(label, int) else [names[i] for i in label]

    return {r["name"]: (named(r["label"]), r["split"]) for r in listing.usable}


def as_json(*items):
    return json.dumps(list(items))
