"""Videos, recordings and pictures that are read inside tar shards."""

import tarfile

import pytest
import torch

from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.data.scan import differences, scan
from smnm_kernels.train.tasks.presets import PRESETS


@pytest.mark.parametrize(
    ("modality", "folder"), [("video", "videos"), ("audio", "sounds"), ("image", "images")]
)
def test_members_are_read_as_the_files_are(modality, folder, tmp_path, request):
    folder = request.getfixturevalue(folder)
    clip = PRESETS[modality]["tiny"].clip
    names = sorted(path.name for path in folder.iterdir())
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for name in names[shard::3]:
                tar.add(folder / name, name)
    of_files, of_members = scan(folder, clip, None, 2), scan(tmp_path, clip, None, 2)
    assert not of_members.skipped
    assert len(of_members.usable) == len(names)
    assert differences(of_members.usable, of_files.usable) == []
    one, other = (
        SampleDataset(data, listing.usable, clip, 0)
        for data, listing in ((folder, of_files), (tmp_path, of_members))
    )
    for index in range(8):
        assert torch.equal(one[index].inputs[modality], other[index].inputs[modality])
