"""An encoder of one input size, used at another: the same weights, other positions."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .positions import Grid, Positions, position_codes
from .vit import Encoder, InputSize


def at_size(encoder: Encoder, input_size: InputSize) -> Encoder:
    """The encoder for inputs (C, T, H, W): itself where that is its size already.

    Only positions change. Codes that VideoMAE and AudioMAE make by a rule are made for the new
    grid; of a shorter spectrogram that leaves the first columns, as AudioMAE's code cuts them. For
    pictures, and where positions came with the weights, they are interpolated as MAE's and
    VideoMAE's code do it: bicubic over the picture, linear over time.

    Raises:
        ValueError: where the channels are others, or patches do not fill the new size.
    """
    if input_size == encoder.input_size:
        return encoder
    if input_size[0] != encoder.input_size[0]:
        raise ValueError(
            f"its input has {encoder.input_size[0]} channels, and {input_size[0]} were asked for"
        )
    table, positions, _ = _positions_at(encoder, encoder.settings.grid(input_size))
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced
        resized = Encoder(replace(encoder.settings, positions=positions), input_size)
    resized.load_state_dict(encoder.state_dict() | {"pos_embed": table})
    resized.checkpoint_activations = encoder.checkpoint_activations
    return resized.to(table.device).train(encoder.training)


def how_resized(encoder: Encoder, input_size: InputSize) -> str | None:
    """What `at_size` would do, in one line; None where nothing changes."""
    if input_size == encoder.input_size:
        return None
    grid = encoder.settings.grid(input_size)
    how = _positions_at(encoder, grid)[2]
    before, after = (" x ".join(map(str, shape)) for shape in (encoder.grid, grid))
    return f"the encoder is of {before} patches (time, rows, columns), used at {after}: {how}"


def _positions_at(encoder: Encoder, grid: Grid) -> tuple[Tensor, Positions, str]:
    is_sound = encoder.input_size[:2] == (1, 1)
    s = encoder.settings
    return positions_at(encoder.pos_embed, s.positions, s.class_token, is_sound, encoder.grid, grid)


def positions_at(
    table: Tensor, rule: Positions, class_token: bool, is_sound: bool, before: Grid, grid: Grid
) -> tuple[Tensor, Positions, str]:
    """Positions of one grid, for another: (table, the rule by which it is made, words)."""
    if grid == before:
        return table, rule, "positions stay as they are"
    dim, first = table.shape[1], int(class_token)
    made = position_codes(rule, before, dim, class_token).to(table)
    # Fine-tuning may have changed them.
    by_rule = rule != "given" and torch.allclose(made, table, rtol=0, atol=1e-5)
    if by_rule and (is_sound or rule != "rows_columns"):
        made = position_codes(rule, grid, dim, class_token)
        return made.to(table), rule, "positions are made for it by the model's rule"
    of_patches, how = table[first:].unflatten(0, before), "positions are interpolated"
    if is_sound and grid[2] == before[2] and grid[1] < before[1]:
        of_patches, how = of_patches[:, : grid[1]], "the positions of its first columns are taken"
    else:
        of_patches = _interpolated(of_patches, grid)
    return torch.cat([table[:first], of_patches.flatten(0, 2)]), "given", how


def _interpolated(table: Tensor, grid: Grid) -> Tensor:
    """[T, H, W, dim] -> the same for another grid."""
    t, h, w, dim = table.shape
    if (h, w) != grid[1:]:
        pictures = table.permute(0, 3, 1, 2)
        pictures = F.interpolate(pictures, grid[1:], mode="bicubic", align_corners=False)
        table = pictures.permute(0, 2, 3, 1)
    if t != grid[0]:
        lines = table.permute(1, 2, 3, 0).reshape(1, -1, t)
        lines = F.interpolate(lines, grid[0], mode="linear", align_corners=False)
        table = lines.view(*grid[1:], dim, grid[0]).permute(3, 0, 1, 2)
    return table
