"""How masks are made without smnm, written from papers and definitions: random masks, banks of
noise, green noise made on the fly by other means, tubes, inverse blocks, and R-BN without kernels.

All draw from torch's generators, so ``torch.manual_seed`` repeats them. All keep
int(N * (1 - ratio)) tokens in binary rounding, as the originals do. They return masks in the form
of the originals; if there is no published original, in the form that takes the least time:

* ``MaeMasks``: (ids_keep int64 [B, n_keep], ids_restore int64 [B, N], masked float32 [B, N],
  1 = removed), as in MAE.
* ``TopkMasks``: (visible bool [B, N], ids_keep int64 [B, n_keep], unsorted). They lack ids_restore,
  which a decoder needs and our masks have.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

Grid = tuple[int, int, int]
Sigmas = tuple[float, float]
Device = torch.device | str
MaeMasks = tuple[Tensor, Tensor, Tensor]
TopkMasks = tuple[Tensor, Tensor]

#: Weights of R-BN's lines: horizontal, vertical, main diagonal, second diagonal. In tenths, so that
#: equal scores compare equal.
LINES = {(0, 1): 4, (1, 0): 4, (1, 1): 1, (1, -1): 1}
#: What a visible patch at (dy, dx) adds to a score: the nearest lie in the windows of 3 and of 5.
NEIGHBOURS = {
    (dy * step, dx * step): tenths * (3 - abs(step))
    for (dy, dx), tenths in LINES.items()
    for step in (-2, -1, 1, 2)
}
#: Empty rows and columns around a mask: half the largest window.
MARGIN = 2


def mae_random_masking(batch: int, n_tokens: int, ratio: float, device: Device = "cpu") -> MaeMasks:
    """MAE: two argsorts of uniform noise and a gather (Masked Autoencoders, 2021)."""
    return _kept_first(torch.rand(batch, n_tokens, device=device).argsort(dim=1), ratio)


def rand_topk(batch: int, n_tokens: int, ratio: float, device: Device = "cpu") -> TopkMasks:
    """The cheapest random mask without ids_restore: topk and a boolean scatter."""
    return _largest_visible(torch.rand(batch, n_tokens, device=device), ratio)


def bank_masking(volumes: Tensor, batch: int, grid: Grid, ratio: float) -> MaeMasks:
    """A random crop and flips of a noise bank per sample, as a data loader takes them, then MAE's
    argsorts of the noise."""
    crops = []
    for _ in range(batch):
        crop = _crop(volumes[int(torch.randint(len(volumes), ()))], grid)
        crops.append(crop.flip([axis for axis in range(3) if torch.rand(()) < 0.5]))
    return _largest_first(torch.stack(crops), ratio)


def resident_bank_masking(volumes: Tensor, batch: int, grid: Grid, ratio: float) -> MaeMasks:
    """``bank_masking`` with the bank on the device, without waiting for the host: volumes, starts
    and flips are drawn there, and one indexing takes all crops."""
    return _largest_first(resident_crops(volumes, batch, grid), ratio)


def resident_crops(volumes: Tensor, batch: int, grid: Grid) -> Tensor:
    """[B, T, H, W]: a random crop, flipped along each axis with probability 1/2, per sample."""
    device = volumes.device
    index = [torch.randint(len(volumes), (batch, 1, 1, 1), device=device)]
    for axis, (side, longest) in enumerate(zip(grid, volumes.shape[1:], strict=True)):
        start = torch.randint(longest - side + 1, (batch, 1), device=device)
        flipped = torch.rand(batch, 1, device=device) < 0.5
        step = torch.arange(side, device=device)
        shape = [batch, 1, 1, 1]
        shape[1 + axis] = side
        index.append((start + torch.where(flipped, side - 1 - step, step)).reshape(shape))
    return volumes[tuple(index)]


def shared_crop_bank_masking(volumes: Tensor, batch: int, grid: Grid, ratio: float) -> MaeMasks:
    """ColorMAE (2024), with volumes in place of its images: sample i is volume i, and all share one
    crop and one pair of flips, over H and W. A batch larger than the bank goes through it again
    with a new crop.

    Not comparable: sample i of every batch has a mask from the same volume.
    """
    pieces = []
    for first in range(0, batch, len(volumes)):
        piece = _crop(volumes[: batch - first], grid)
        pieces.append(piece.flip([axis for axis in (-2, -1) if torch.rand(()) < 0.5]))
    return _largest_first(torch.cat(pieces), ratio)


def resized_bank_masking(volumes: Tensor, batch: int, grid: Grid, ratio: float) -> MaeMasks:
    """``bank_masking`` with crops of random size, resized to the grid: the noise of an image
    pipeline's random resized crop.

    Not comparable: the resize changes the spectrum, differently for each sample.
    """
    return _largest_first(resized_crops(volumes, batch, grid), ratio)


def resized_crops(volumes: Tensor, batch: int, grid: Grid) -> Tensor:
    """[B, T, H, W]: per sample a crop, each side drawn from grid's to volume's, resized
    trilinearly."""
    crops = []
    for _ in range(batch):
        sides = zip(grid, volumes.shape[1:], strict=True)
        size = [int(torch.randint(side, longest + 1, ())) for side, longest in sides]
        crop = _crop(volumes[int(torch.randint(len(volumes), ()))], size)[None, None]
        crops.append(functional.interpolate(crop, grid, mode="trilinear")[0, 0])
    return torch.stack(crops)


# Green noise on the fly: the difference of two Gaussian filters of white noise. An axis of one
# patch is not filtered, so a grid of one frame is two-dimensional.


def draw_sigmas() -> Sigmas:
    """A pair of sigmas as in variant-5 of Structured-Noise Masked Modeling (2025). It is drawn on
    the host, because the size of the filters depends on it, and so serves a whole batch."""
    while True:
        first, second = torch.rand(2).tolist()
        sigmas = 0.4 + 1.1 * first, 1.4 + 1.6 * second
        if sigmas[0] < sigmas[1]:
            return sigmas


def circulant_green_masking(
    batch: int, grid: Grid, ratio: float, device: Device = "cpu"
) -> TopkMasks:
    """Green noise at the grid: a product with a circulant matrix per axis and sigma, then topk.

    Not comparable: the noise wraps around, so the first and the last frame show the same blobs;
    one pair of sigmas for the batch; no ids_restore.
    """
    return _largest_visible(circulant_green(batch, grid, draw_sigmas(), device), ratio)


def circulant_green(batch: int, grid: Grid, sigmas: Sigmas, device: Device = "cpu") -> Tensor:
    """[B, T, H, W], not scaled."""
    white = torch.randn(batch, *grid, device=device)
    fields = []
    for sigma in sigmas:
        along_t, along_h, along_w = (_circulant(side, sigma, device) for side in grid)
        field = along_h @ (white @ along_w)
        fields.append((along_t @ field.flatten(2)).view_as(white))
    return fields[0] - fields[1]


def _circulant(side: int, sigma: float, device: Device) -> Tensor:
    place = torch.arange(side, device=device)
    return _ring(side, sigma, device)[(place[:, None] - place) % side]


def fft_green_masking(batch: int, grid: Grid, ratio: float, device: Device = "cpu") -> TopkMasks:
    """Green noise by FFT on a canvas larger than the grid, so that it does not wrap; crop; topk.

    Not comparable: one pair of sigmas for the batch; no ids_restore.
    """
    return _largest_visible(fft_green(batch, grid, draw_sigmas(), device), ratio)


def fft_green(batch: int, grid: Grid, sigmas: Sigmas, device: Device = "cpu") -> Tensor:
    """[B, T, H, W], not scaled. Up to sigma1 = 0.85 sigma2, 3.5 sigmas of border keep every
    covariance within 1% of the variance from that of the endless field, as ours is."""
    border = math.ceil(3.5 * sigmas[1])
    canvas = [1 if side == 1 else _fast_length(side + border) for side in grid]
    gains = []
    for sigma in sigmas:
        t, h, w = (torch.fft.fft(_ring(side, sigma, device)).real for side in canvas)
        gains.append(t[:, None, None] * h[:, None] * w[: canvas[2] // 2 + 1])
    spectrum = torch.fft.rfftn(torch.randn(batch, *canvas, device=device), dim=(1, 2, 3))
    field = torch.fft.irfftn(spectrum * (gains[0] - gains[1]), s=canvas, dim=(1, 2, 3))
    return field[:, : grid[0], : grid[1], : grid[2]]


def _fast_length(n: int) -> int:
    """The next product of twos, threes and fives, which FFTs are fast for."""
    while 30**n % n:
        n += 1
    return n


def scipy_green_masking(batch: int, grid: Grid, ratio: float) -> TopkMasks:
    """Green noise with scipy.ndimage.gaussian_filter, one sample after the other, as a data set
    would, then topk.

    Not comparable: scipy mirrors the noise at the borders, where its variance is then larger; one
    pair of sigmas for the batch; no ids_restore.
    """
    return _largest_visible(scipy_green(batch, grid, draw_sigmas()), ratio)


def scipy_green(batch: int, grid: Grid, sigmas: Sigmas) -> Tensor:
    """[B, T, H, W], not scaled."""
    # scipy is of the test extra only.
    from scipy.ndimage import gaussian_filter

    fields = []
    for _ in range(batch):
        white = torch.randn(grid).numpy()
        fields.append(gaussian_filter(white, sigmas[0]) - gaussian_filter(white, sigmas[1]))
    return torch.from_numpy(np.stack(fields))


def conv_green_masking(batch: int, grid: Grid, ratio: float, device: Device = "cpu") -> TopkMasks:
    """Green noise by conv3d along one axis after the other, of white noise with a border of 4
    sigmas, so that nothing wraps; topk.

    Not comparable: one pair of sigmas for the batch; no ids_restore.
    """
    return _largest_visible(conv_green(batch, grid, draw_sigmas(), device), ratio)


def conv_green(batch: int, grid: Grid, sigmas: Sigmas, device: Device = "cpu") -> Tensor:
    """[B, T, H, W], not scaled."""
    reach = math.ceil(4 * sigmas[1])
    place = torch.arange(-reach, reach + 1, device=device)
    taps = torch.stack([torch.exp(place**2 / (-2 * sigma**2)) for sigma in sigmas])
    taps = taps / taps.sum(dim=1, keepdim=True)
    canvas = [side if side == 1 else side + 2 * reach for side in grid]
    # The two filters are two channels from the first pass on.
    field = torch.randn(batch, 1, *canvas, device=device)
    for axis, side in enumerate(grid):
        if side > 1:
            shape = [2, 1, 1, 1, 1]
            shape[2 + axis] = -1
            field = functional.conv3d(field, taps.view(shape), groups=field.shape[1])
    return field[:, 0] - field[:, 1]


def tube_generator_masking(batch: int, grid: Grid, ratio: float) -> Tensor:
    """VideoMAE (2022): per sample one NumPy shuffle of a frame's mask, repeated over the frames and
    collated by torch. bool [B, N], True = masked.

    Not comparable: int(ratio * H * W) are masked per frame, so more tokens stay; no ids.
    """
    frames, in_frame = grid[0], grid[1] * grid[2]
    n_masked = int(ratio * in_frame)
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    masks = []
    for _ in range(batch):
        frame = np.hstack([np.zeros(in_frame - n_masked), np.ones(n_masked)])
        rng.shuffle(frame)
        masks.append(np.tile(frame, (frames, 1)).flatten())
    return default_collate(masks).flatten(1).to(torch.bool)


def inverse_block_masking(
    batch: int, grid: Grid, ratio: float, block: int = 5, adjust: float = 0.07
) -> Tensor:
    """data2vec 2.0 (2023), in one call for the batch, on any (1, H, W): blocks around random
    centres stay visible, then patches are hidden or shown at random until the count is right.
    float32 [B, N], 1 = masked.

    Not comparable: no ids. data2vec's data set calls it once per sample.
    """
    _, height, width = grid
    n_tokens = height * width
    n_keep = int(n_tokens * (1 - ratio))
    n_centres = int(n_tokens * (1 - ratio + adjust) / block**2)
    centre = torch.randint(n_tokens, (batch, n_centres, 1, 1))
    step = torch.arange(block) - block // 2
    y = (centre // width + step[:, None]).clamp(0, height - 1)
    x = (centre % width + step).clamp(0, width - 1)
    visible = torch.zeros(batch, n_tokens).scatter_(1, (y * width + x).flatten(1), 1)
    for row, count in zip(visible, visible.sum(1).int().tolist(), strict=True):
        if count > n_keep:
            row[torch.multinomial(row, count - n_keep)] = 0
        elif count < n_keep:
            row[torch.multinomial(1 - row, n_keep - count)] = 1
    return 1 - visible


# R-BN, Algorithm 1 of Structured-Noise Masked Modeling (2025), ties to the first mask.


def rbn_python(
    batch: int,
    grid: Grid,
    ratio: float,
    n_candidates: int | None = None,
    orders: Tensor | None = None,
) -> Tensor:
    """R-BN in nested Python loops: each candidate counts its neighbours again at each position. K
    masks make a bank, so B samples take ceil(B / K) banks; ``orders`` [banks, N] are the positions
    as each bank visits them, else random. bool [B, N], True = visible; no ids."""
    n_keep, n_candidates, visits = _rbn_banks(batch, grid, ratio, n_candidates, orders)
    _, height, width = grid
    wide = width + 2 * MARGIN
    neighbours = [(dy * wide + dx, weight) for (dy, dx), weight in NEIGHBOURS.items()]
    rows = []
    for order in visits:
        masks = [[0] * (wide * (height + 2 * MARGIN)) for _ in range(n_candidates)]
        room = [n_keep] * n_candidates
        while any(room):
            for position in order:
                at = (position // width + MARGIN) * wide + position % width + MARGIN
                best, lowest = None, 0
                for k, mask in enumerate(masks):
                    if room[k] == 0 or mask[at]:
                        continue
                    score = 0
                    for offset, weight in neighbours:
                        score += weight * mask[at + offset]
                    if best is None or score < lowest:
                        best, lowest = k, score
                if best is not None:
                    masks[best][at] = 1
                    room[best] -= 1
        rows += masks
    visible = torch.tensor(rows[:batch], dtype=torch.bool).view(batch, -1, wide)
    return visible[:, MARGIN:-MARGIN, MARGIN:-MARGIN].flatten(1)


def rbn_numpy(
    batch: int,
    grid: Grid,
    ratio: float,
    n_candidates: int | None = None,
    orders: Tensor | None = None,
) -> Tensor:
    """``rbn_python`` with NumPy over the K masks: scores are kept up to date, and each position
    takes one argmin."""
    n_keep, n_candidates, visits = _rbn_banks(batch, grid, ratio, n_candidates, orders)
    _, height, width = grid
    bump = np.zeros((2 * MARGIN + 1, 2 * MARGIN + 1), dtype=np.int32)
    for (dy, dx), weight in NEIGHBOURS.items():
        bump[MARGIN + dy, MARGIN + dx] = weight
    # More than any score, so that a mask that is full or shows the position is never the lowest.
    closed = 2**20
    bump[MARGIN, MARGIN] = closed
    banks = np.zeros((len(visits), n_candidates, height * width), dtype=bool)
    for visible, order in zip(banks, visits, strict=True):
        scores = np.zeros((n_candidates, height + 2 * MARGIN, width + 2 * MARGIN), dtype=np.int32)
        room = [n_keep] * n_candidates
        while any(room):
            for position in order:
                y, x = divmod(position, width)
                candidates = scores[:, y + MARGIN, x + MARGIN]
                best = int(candidates.argmin())
                if candidates[best] < closed:
                    visible[best, position] = True
                    scores[best, y : y + len(bump), x : x + len(bump)] += bump
                    room[best] -= 1
                    if not room[best]:
                        scores[best] += closed
    return torch.from_numpy(banks).flatten(0, 1)[:batch]


def _rbn_banks(
    batch: int, grid: Grid, ratio: float, n_candidates: int | None, orders: Tensor | None
) -> tuple[int, int, list[list[int]]]:
    """n_keep, K (by default as many masks as fit side by side, at least 2), and the orders."""
    n_tokens = grid[1] * grid[2]
    n_keep = int(n_tokens * (1 - ratio))
    n_candidates = n_candidates or max(2, n_tokens // n_keep)
    n_banks = -(-batch // n_candidates)
    if orders is None:
        orders = torch.rand(n_banks, n_tokens).argsort(dim=1)
    return n_keep, n_candidates, orders[:n_banks].tolist()


def _crop(volumes: Tensor, size: Sequence[int]) -> Tensor:
    """A random window of the last three axes, the same for all volumes."""
    for axis, side in zip((-3, -2, -1), size, strict=True):
        start = int(torch.randint(volumes.shape[axis] - side + 1, ()))
        volumes = volumes.narrow(axis, start, side)
    return volumes


def _ring(side: int, sigma: float, device: Device) -> Tensor:
    """A normalised Gaussian at 0, wrapped around a ring of ``side`` places."""
    laps = math.ceil(4 * sigma / side)
    place = torch.arange(-laps * side, (laps + 1) * side, device=device)
    taps = torch.exp(place**2 / (-2 * sigma**2)).view(-1, side).sum(dim=0)
    return taps / taps.sum()


def _largest_first(noise: Tensor, ratio: float) -> MaeMasks:
    return _kept_first(noise.flatten(1).argsort(dim=1, descending=True), ratio)


def _kept_first(ids_shuffle: Tensor, ratio: float) -> MaeMasks:
    """As in MAE: the first of the shuffled tokens are kept."""
    ids_restore = ids_shuffle.argsort(dim=1)
    n_keep = int(ids_shuffle.shape[1] * (1 - ratio))
    masked = torch.ones(ids_shuffle.shape, device=ids_shuffle.device)
    masked[:, :n_keep] = 0
    return ids_shuffle[:, :n_keep], ids_restore, masked.gather(1, ids_restore)


def _largest_visible(noise: Tensor, ratio: float) -> TopkMasks:
    noise = noise.flatten(1)
    ids_keep = noise.topk(int(noise.shape[1] * (1 - ratio)), dim=1, sorted=False).indices
    visible = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device)
    return visible.scatter_(1, ids_keep, True), ids_keep
