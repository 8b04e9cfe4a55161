"""The paper's offline pipeline: noise volumes are made before training, kept on disk or in memory,
and cropped at random for every sample. Or each is resized to the token grid: its other rule.

``MaskSampler`` needs none of this. A bank repeats its volumes, takes gigabytes, and is loaded by
every process. It is here to measure the two side by side, and to repeat runs on published banks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arguments import Grid, Seed, check_sample_ids, is_int, parse_grid, parse_seed
from .files import replacing
from .functional import threshold
from .kinds import NoiseField
from .masks import Masks
from .tables.colors import Color, Sigma
from .tables.constants import Purpose

_LOW = 0xFFFFFFFF


class NoiseBank:
    """Noise volumes, and masks cut from them.

    Args:
        volumes: floating point [M, T, H, W], such as a published bank. Crops are made where the
            tensor is: of a memory-mapped one only the pages that are needed are read, and a CUDA
            tensor never leaves the device.
        origin: what the volumes are (color, sigma, seed); ``save`` writes it to a file beside them.

    Example::

        bank = NoiseBank.precompute(256, (64, 64, 64), "green")
        bank.save("green.npy")
        masks = NoiseBank.load("green.npy").masks(sample_ids, (8, 14, 14), 0.9)
    """

    def __init__(self, volumes: Tensor, origin: dict[str, object] | None = None) -> None:
        if not isinstance(volumes, Tensor) or not volumes.dtype.is_floating_point:
            came = volumes.dtype if isinstance(volumes, Tensor) else type(volumes).__name__
            raise TypeError(f"volumes must be a floating-point tensor [M, T, H, W], got {came}")
        if volumes.dim() != 4 or 0 in volumes.shape:
            raise ValueError(f"volumes must have shape [M, T, H, W], got {list(volumes.shape)}")
        self.volumes = volumes
        self.origin = origin or {}

    @classmethod
    def precompute(
        cls,
        n_volumes: int,
        shape: Sequence[int] = (64, 64, 64),
        color: Color = "green",
        *,
        sigma: Sigma = None,
        time_scale: float = 1.0,
        seed: int = 0,
        path: str | os.PathLike | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> NoiseBank:
        """Volume m is ``noise([m], shape, color, sigma=sigma, ...)``.

        Args:
            n_volumes: M. 3072 volumes of 64x64x64 take 3 GiB.
            shape: (T, H, W) of each volume; T = 1, or (H, W), makes a two-dimensional bank.
            color, sigma, time_scale, seed: as for ``noise``.
            path: a ``.npy`` file to write the volumes to, one after the other, and to map then,
                instead of holding the bank in memory.
            progress: wraps the loop over volumes, such as ``tqdm.tqdm``.
        """
        shape = parse_grid(shape)
        if not is_int(n_volumes) or n_volumes < 1:
            raise ValueError(f"n_volumes must be an int of at least 1, got {n_volumes!r}")
        seed = int(seed)
        field = NoiseField.parse(shape, color, sigma, time_scale)
        origin = {"color": color, "sigma": list(field.sigma), "seed": seed}
        if time_scale != 1:
            origin["time_scale"] = time_scale
        full_shape = (n_volumes, *shape)

        def fill(volumes: np.ndarray) -> None:
            for m in progress(range(n_volumes)):
                volumes[m] = field.draw(torch.tensor([m]), Seed(None, seed))[0].numpy()

        if path is None:
            volumes = np.empty(full_shape, dtype=np.float32)
            fill(volumes)
            return cls(torch.from_numpy(volumes), origin)
        path = _npy_path(path)
        with replacing(path) as file:
            mapped = np.lib.format.open_memmap(file.name, "w+", np.float32, full_shape)
            fill(mapped)
            mapped.flush()
        _write_origin(path, origin)
        return cls.load(path)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the volumes to ``path`` (.npy, readable by ``numpy.load``) and their origin to a
        .json file beside it."""
        path = _npy_path(path)
        with replacing(path) as file:
            np.save(file, self.volumes.cpu().numpy())
        _write_origin(path, self.origin)

    @classmethod
    def load(cls, path: str | os.PathLike, *, mmap: bool = True) -> NoiseBank:
        """Opens a ``.npy`` bank, by default memory-mapped, so that processes on one machine share
        its pages."""
        path = _npy_path(path)
        # "c" maps pages copy-on-write: torch has no read-only tensors.
        volumes = torch.from_numpy(np.load(path, mmap_mode="c" if mmap else None))
        beside = path.with_suffix(".json")
        return cls(volumes, json.loads(beside.read_text()) if beside.exists() else None)

    def to(self, device: torch.device | str) -> NoiseBank:
        """The bank on another device."""
        return NoiseBank(self.volumes.to(device), self.origin)

    def resized(self, grid: Sequence[int]) -> NoiseBank:
        """A bank whose volumes are these, each as a whole resized to the grid: crops of it on that
        grid are flipped volumes.

        The structured-noise paper gives two rules to put noise on the grid, and they give other
        masks. A crop (its Algorithm 2) keeps neighbours neighbours; sigma counts patches. A resize
        (its section 3.4) takes values that are far apart: from 64 to 8 or 14 on an axis, more than
        four. Neighbours hardly correlate then, whatever the color; and of M volumes there are at
        most 8 M different masks.

        How to resize the paper leaves open. Our choice is trilinear interpolation between the
        centres of cells, without smoothing before it, as ``torch.nn.functional.interpolate`` has it
        with ``align_corners=False``. Where a token falls between two values it gets their mean,
        which varies less, and is visible less often than where it falls on one. The paper also
        normalises. That changes no order within a volume, so no mask, and is left out.

        Args:
            grid: (T, H, W) or (H, W), on no axis longer than the volumes.

        Returns:
            A bank of [M, T, H, W] in the dtype and on the device of this one: the same bits on
            every device.
        """
        sides = self._parse_grid(grid)
        volumes = torch.stack([_resized(volume, sides) for volume in self.volumes])
        return NoiseBank(volumes, self.origin | {"resized_from": list(self.volumes.shape[1:])})

    def _parse_grid(self, grid: Sequence[int]) -> Grid:
        sides, room = parse_grid(grid), tuple(self.volumes.shape[1:])
        if any(side > longest for side, longest in zip(sides, room, strict=True)):
            raise ValueError(f"grid must fit in the bank's volumes {room}, got {sides}")
        return sides

    def noise(
        self,
        sample_ids: Tensor,
        grid: Sequence[int],
        *,
        flips: bool = True,
        seed: int | Tensor = 0,
    ) -> Tensor:
        """A random crop, flipped along each axis with probability 1/2, for each sample.

        Args:
            sample_ids: int64 [B] on the bank's device. A crop is a function of (bank, seed, id).
            grid: (T, H, W) or (H, W), on no axis longer than the volumes.
            flips: whether to flip.
            seed: int, or one-element int64 tensor on the same device.

        Returns:
            [B, T, H, W] in the bank's dtype.
        """
        check_sample_ids(sample_ids)
        sides = self._parse_grid(grid)
        n_volumes, *room = self.volumes.shape
        if sample_ids.device != self.volumes.device:
            raise ValueError(
                f"sample_ids must be on the bank's device {self.volumes.device}, "
                f"got {sample_ids.device}"
            )
        seed_tensor, seed_value = parse_seed(seed, sample_ids.device)
        key = sample_ids.new_full((), seed_value) if seed_tensor is None else seed_tensor
        words = _crop_words(sample_ids, key.reshape(()))
        volume = words[0] * n_volumes >> 32
        index = [volume[:, None, None, None]]
        for axis, (side, longest) in enumerate(zip(sides, room, strict=True)):
            start = words[1 + axis] * (longest - side + 1) >> 32
            step = torch.arange(side, device=sample_ids.device).expand(len(sample_ids), side)
            if flips:
                flipped = (words[4] >> axis & 1).bool()
                step = torch.where(flipped[:, None], side - 1 - step, step)
            shape = [len(sample_ids), 1, 1, 1]
            shape[1 + axis] = side
            index.append((start[:, None] + step).reshape(shape))
        return self.volumes[tuple(index)]

    def masks(
        self,
        sample_ids: Tensor,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        flips: bool = True,
        seed: int | Tensor = 0,
    ) -> Masks:
        """``threshold(self.noise(...), mask_ratio)``."""
        return threshold(
            self.noise(sample_ids, grid, flips=flips, seed=seed), mask_ratio, n_keep=n_keep
        )

    def __repr__(self) -> str:
        origin = "".join(f", {name}={value!r}" for name, value in self.origin.items())
        size = self.volumes.numel() * self.volumes.element_size() / 2**20
        return f"NoiseBank({list(self.volumes.shape)}, {size:.0f} MiB{origin})"


def _resized(volume: Tensor, grid: Grid) -> Tensor:
    """Place i of n on an axis of the grid lies at ((2i + 1) L - n) / 2n of the volume's L."""
    values = volume.double()
    for axis, (side, longest) in enumerate(zip(grid, volume.shape, strict=True)):
        place = (2 * torch.arange(side, device=volume.device) + 1) * longest - side
        before = place // (2 * side)
        after = (before + 1).clamp(max=longest - 1)
        shape = [1, 1, 1]
        shape[axis] = side
        share = (place % (2 * side)).view(shape)  # of the value after, in 2n-ths
        # One operation after the other, none fused, so that every device rounds alike.
        low = values.index_select(axis, before) * (2 * side - share)
        high = values.index_select(axis, after) * share
        values = (low + high) / (2 * side)
    return values.to(volume.dtype)


def _crop_words(sample_ids: Tensor, seed: Tensor) -> list[Tensor]:
    """Five random words for each sample, int64 [B] in [0, 2**32): Philox blocks 0 and 1 of
    Purpose.CROP.

    Made of torch operations, so that crops are drawn on the bank's device without waiting for the
    host.
    """
    blocks = torch.arange(2, device=sample_ids.device)[:, None].expand(2, len(sample_ids))
    c = [blocks, torch.full_like(blocks, Purpose.CROP), sample_ids & _LOW, sample_ids >> 32 & _LOW]
    rounds = torch.arange(10, device=sample_ids.device)
    keys0 = ((seed & _LOW) + rounds * 0x9E3779B9 & _LOW).unbind()
    keys1 = ((seed >> 32 & _LOW) + rounds * 0xBB67AE85 & _LOW).unbind()
    for key0, key1 in zip(keys0, keys1, strict=True):
        # These int64 products may overflow. Their bits are still those of the unsigned products.
        product0, product1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [
            (product1 >> 32 & _LOW) ^ c[1] ^ key0,
            product1 & _LOW,
            (product0 >> 32 & _LOW) ^ c[3] ^ key1,
            product0 & _LOW,
        ]
    return [*(word[0] for word in c), c[0][1]]


def _npy_path(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"path of a bank must end in .npy, got {str(path)!r}")
    return path


def _write_origin(path: Path, origin: dict[str, object]) -> None:
    with replacing(path.with_suffix(".json")) as file:
        file.write(json.dumps(origin, indent=1).encode())
