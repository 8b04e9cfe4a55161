"""AVT's losses: a clip's picture and sound known by each other before fusion, and told from those
of other clips behind it; a masked sound restored.

AVT (Zhu 2024, arXiv 2401.04154) names the losses and their weights; their forms are our choice
where no other source stands beside them. Each is what it would be without the others, and one of
weight 0 is not computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smnm_kernels import Masks, activity_segments
from smnm_kernels.train.data.on_device import moved
from smnm_kernels.train.data.padding import with_quiet_padding

from .audio_video_encoder import mean_of
from .avt_encoder import FusedEncoder
from .contrast import cosines, info_nce, related_of_all, sharing
from .exchange import everyones
from .fusion import FusionSettings
from .objective import NO_FACTS, Facts
from .vit import joined_seen, patches_of, select_tokens

#: Of contrast, and of the draw of hard negatives. Our choice: where ALBEF (Li et al. 2021) begins.
TEMPERATURE = 0.07


@dataclass(frozen=True)
class LossWeights:
    """AVT's lambda 1 to 3. 0 leaves a loss out."""

    contrast: float = 0.5
    matching: float = 0.1
    segment: float = 0.01

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name} must be a number from 0 on, got {weight}")


def _telling(fusion: FusionSettings) -> int:
    """Of the video's blocks, how many tell the sound's stream something: what one gives reaches the
    sound's next block."""
    return 0 if fusion.kind == "late" else fusion.blocks - 1


def check_learns(weights: LossWeights, fusion: FusionSettings) -> None:
    """ValueError where these losses, without labels, leave an input unlearnt."""
    if not (weights.contrast or weights.matching or weights.segment):
        raise ValueError("the weights of contrast, matching and segment must not all be 0")
    heard = fusion.kind == "concat" or _telling(fusion)
    if not (weights.contrast or weights.matching or heard):
        raise ValueError(
            f"segment alone, with {fusion.kind} fusion of {fusion.blocks} blocks, learns nothing "
            "of the video"
        )


class Parts(NamedTuple):
    """What losses are made of; None where nobody asked for it."""

    #: Means of each input's tokens before fusion, [B, dim].
    video: Tensor
    #: None of the audio where the segment's loss alone is asked for, which hears no whole sound.
    audio: Tensor | None
    #: Logits, [2 B]: each clip with its own sound, then each with another's.
    matching: Tensor | None
    #: Values of the masked patches of the sound, [B, n, values].
    restored: Tensor | None
    #: Tokens behind fusion and norm, [B, n, dim], and which of them are seen (None: all).
    tokens: Tensor | None
    seen: Tensor | None


class AvtLearner(nn.Module):
    """forward(inputs, seen, masks, fused, chance) -> Parts.

    inputs: {"video": [B, C, T, H, W], "audio": [B, 1, 1, frames, bands]}.
    seen: bool [B, N], of those that are padded the patches that hold anything real.
    masks: of the sound; only the segment's loss looks at them.
    fused: whether the tokens behind fusion are asked for, too.
    chance: what `pair_chances` draws, by which other sounds are chosen; without it nothing is
        matched.

    Matching: a clip's frames with its own sound against the same frames with the sound of another
    clip, of another file, of the same part of a batch in the same process, drawn with probability
    proportional to exp(cosine / TEMPERATURE) of the means before fusion (ALBEF's hard negatives).
    One linear layer judges the mean of all tokens behind fusion; with late fusion it has nothing to
    compare.

    Segment: the sound's encoder sees what the masks show. In fusion a learned token stands for each
    masked patch, with the encoder's position; behind it one linear layer gives the patch's values.
    """

    def __init__(self, encoder: FusedEncoder, weights: LossWeights, classifies: bool) -> None:
        """encoder: becomes a part of it. classifies: whether a head reads `Parts.tokens`.

        Raises ValueError where nothing would be learnt of an input.
        """
        super().__init__()
        self.encoder, self.weights = encoder, weights
        self.matching = nn.Linear(encoder.settings.dim, 1) if weights.matching else None
        self.mask_token: nn.Parameter | None = None
        self.restored: nn.Linear | None = None
        if weights.segment:
            self.mask_token = nn.Parameter(torch.empty(encoder.settings.dim))
            nn.init.normal_(self.mask_token, std=0.02)
            audio = encoder.branch("audio")
            self.restored = nn.Linear(
                encoder.settings.dim, audio.settings.patch_values(audio.input_size[0])
            )
        if not (classifies or weights.matching):
            self._leave_alone_what_is_not_read()

    def _leave_alone_what_is_not_read(self) -> None:
        """A restored segment reads the sound's stream behind fusion, contrast nothing there. DDP
        takes weights that get no gradient for a fault."""
        check_learns(self.weights, self.encoder.settings.fusion)
        fusion = self.encoder.fusion
        if not self.weights.segment:
            for module in (fusion, self.encoder.norm):
                module.requires_grad_(False)
            return
        for block in list(fusion.blocks["video"].children())[_telling(fusion.settings) :]:
            block.requires_grad_(False)

    def forward(
        self,
        inputs: dict[str, Tensor],
        seen: dict[str, Tensor],
        masks: Masks | None = None,
        fused: bool = False,
        chance: Tensor | None = None,
    ) -> Parts:
        encoder, w = self.encoder, self.weights
        matched = self.matching is not None and chance is not None
        video = encoder.own("video", inputs["video"], seen.get("video"))
        audio = None
        if w.contrast or matched or fused:
            audio = encoder.own("audio", inputs["audio"], seen.get("audio"))
        means = (
            mean_of(video, seen.get("video")),
            None if audio is None else mean_of(audio, seen.get("audio")),
        )
        # Sounds that are fused with the video, [B, N, dim] each, and where sounds are padded, which
        # of their tokens are seen. All go through the blocks together.
        sounds, heard = [], []
        if audio is not None and (fused or matched):
            sounds, heard = [audio], [seen["audio"]] if "audio" in seen else []
        if chance is not None and matched:
            assert audio is not None
            assert means[1] is not None
            other = hard_negatives(means[0], means[1], chance)
            sounds.append(audio[other])
            heard += [of_sound[other] for of_sound in heard]
        if w.segment:
            assert masks is not None
            masked, order = self._masked(inputs["audio"], masks)
            sounds.append(masked)
            heard += [seen["audio"].gather(1, order)] if "audio" in seen else []
        if not sounds:
            return Parts(*means, None, None, None, None)

        n = len(video)
        seen_now = {}
        if "video" in seen:
            seen_now["video"] = seen["video"].repeat(len(sounds), 1)
        if heard:
            seen_now["audio"] = torch.cat(heard)
        both = {"video": video.repeat(len(sounds), 1, 1), "audio": torch.cat(sounds)}
        tokens = encoder.norm(joined(encoder.fusion(both, seen_now)))
        seen_of_tokens = joined_seen(both, seen_now)
        matching = restored = None
        if self.matching is not None and matched:
            of_pairs = None if seen_of_tokens is None else seen_of_tokens[: 2 * n]
            matching = self.matching(mean_of(tokens[: 2 * n], of_pairs)).squeeze(1)
        if self.restored is not None:
            assert masks is not None
            restored = self.restored(tokens[-n:, -masks.ids_masked.shape[1] :])
        return Parts(
            *means,
            matching,
            restored,
            tokens[:n] if fused else None,
            seen_of_tokens[:n] if fused and seen_of_tokens is not None else None,
        )

    @torch.no_grad()
    def restore(self, inputs: dict[str, Tensor], seen: dict[str, Tensor], masks: Masks) -> Tensor:
        """The sound with what the model makes of its masked patches: [B, 1, 1, frames, bands]."""
        restored = self(inputs, seen, masks).restored
        audio = self.encoder.branch("audio")
        patches = audio.patchify(inputs["audio"]).float()
        ids = masks.ids_masked.unsqueeze(-1).expand_as(restored)
        return audio.unpatchify(patches.scatter(1, ids, restored.float()))

    def _masked(self, x: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Tokens [B, N, dim] of the sound, those that are shown in front, and their patches,
        int64 [B, N]."""
        assert self.mask_token is not None
        audio = self.encoder.branch("audio")
        shown = self.encoder.own("audio", x, ids=masks.ids_keep)
        positions = audio.pos_embed[audio.class_tokens :]
        hidden = self.mask_token + F.embedding(masks.ids_masked, positions)
        tokens = torch.cat([shown, hidden.to(shown.dtype)], dim=1)
        return tokens, torch.cat([masks.ids_keep, masks.ids_masked], dim=1)


def joined(tokens: dict[str, Tensor]) -> Tensor:
    """One stream behind the other: [B, n, ...]."""
    return torch.cat(list(tokens.values()), dim=1)


def pair_chances(weights: LossWeights, x: Tensor, files: Tensor | None = None) -> Tensor | None:
    """float32 [B, B], on the device of x [B, ...], for `hard_negatives`; None where nothing is
    matched. Standard Gumbel noise, and -inf of pairs that have a file in common: files, int64
    [B, k] on the host, are those that each sample is made of; None: of its own.

    From torch's random stream, which the loop sets by the seed and the part's first sample; that of
    the host, so that they are the same on every device. Call it outside of the model: a compiled
    one would draw other numbers.
    """
    if not weights.matching:
        return None
    chance = torch.rand(len(x), len(x)).clamp_(min=torch.finfo(torch.float32).tiny)
    gumbel = -(-chance.log()).log()
    return moved(gumbel.masked_fill(_related(files, len(x)), -torch.inf), x.device)


def _related(files: Tensor | None, n: int) -> Tensor:
    """bool [B, B], on the host: each sample to itself and to those that have a file in common."""
    return torch.eye(n, dtype=torch.bool) if files is None else sharing(files)


@torch.no_grad()
def hard_negatives(video: Tensor, audio: Tensor, chance: Tensor) -> Tensor:
    """int64 [B], for each row of video [B, D] another row of audio [B, D], drawn with probability
    proportional to exp(cosine / TEMPERATURE); any row where there is no other.

    chance: float32 [B, B] of `pair_chances`. The largest of logits + Gumbel noise is such a draw.
    """
    return (cosines(video, audio) / TEMPERATURE + chance).argmax(1)


@torch.no_grad()
def segment_shares(
    x: Tensor, patch: tuple[int, int, int], masks: Masks, valid: Tensor | None = None
) -> Tensor:
    """float32 [B, n], the share of each masked patch of sounds x [B, 1, 1, frames, bands] in the
    segment's loss: a sample's sum to 1, the others are 0.

    One segment counts, of those that `activity_segments` finds the one with the most masked
    patches, of equal ones the first. Where none of it is masked, all masked patches count. Those
    that are not `valid`, bool [B, N], never do; without any a sample has no share.
    """
    found = activity_segments(x, patch, valid=valid)
    of_patch = found.gather(1, masks.ids_masked // (x.shape[4] // patch[2]))
    counted = torch.ones_like(of_patch) if valid is None else valid.gather(1, masks.ids_masked)
    counted = counted.long()
    most = found.shape[1] + 1
    counts = torch.zeros(len(found), most, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, of_patch, counted)
    counts[:, 0] = 0
    # The first of equal ones, on every device: later ones count for a little less.
    place = torch.arange(most, device=x.device)
    largest = (counts * most + (most - 1 - place)).argmax(1, keepdim=True)
    there = counts.gather(1, largest) > 0
    chosen = torch.where(there, of_patch == largest, True) * counted
    return chosen / chosen.sum(1, keepdim=True).clamp(min=1)


def avt_losses(
    parts: Parts,
    weights: LossWeights,
    patch: tuple[int, int, int],
    sound: Tensor,
    masks: Masks | None,
    valid: Tensor | None,
    facts: Facts = NO_FACTS,
) -> dict[str, Tensor]:
    """Scalars, float32 (float64 of float64), each before its weight:

    contrast: InfoNCE both ways between the means before fusion, over the samples of all processes.
    matching: binary cross-entropy of "is its own sound", a clip's own and another's alike.
    segment: squared error of the values of a masked segment's patches (`segment_shares`) of the
        input as it is, a mean over the patch, the segment and the samples. Where padding is hidden,
        segments are found beside quiet padding, as masks find them.

    Samples that have a file in common are no others to each other. One that is left without others
    has no contrast and no matching: 0, in means over all samples.

    sound: [B, 1, 1, frames, bands], the input, and patch, (1, h, w) of its values; masks and valid,
        bool [B, N], are its own, too.
    """
    losses = {}
    if weights.contrast:
        assert parts.audio is not None
        related = related_of_all(facts.files, sound.device)
        means = everyones(parts.video), everyones(parts.audio)
        losses["contrast"] = info_nce(*means, TEMPERATURE, related=related)
    if parts.matching is not None:
        logits = _wide(parts.matching)
        own = (torch.arange(len(logits), device=logits.device) < len(sound)).to(logits.dtype)
        of_pairs = F.binary_cross_entropy_with_logits(logits, own, reduction="none")
        alone = moved(_related(facts.files, len(sound)).all(1), sound.device)
        losses["matching"] = of_pairs.masked_fill(alone.repeat(2), 0.0).mean()
    if parts.restored is not None:
        assert masks is not None
        target = select_tokens(patches_of(sound, patch), masks.ids_masked)
        by_patch = (_wide(parts.restored) - target).square().mean(2)
        real = facts.real.get("audio")
        quiet = sound if real is None else with_quiet_padding(sound, real)
        shares = segment_shares(quiet, patch, masks, valid)
        losses["segment"] = (by_patch * shares).sum(1).mean()
    return losses


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weighted(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Their sum."""
    factors = asdict(weights)
    return torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
