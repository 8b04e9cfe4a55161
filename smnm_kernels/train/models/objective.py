"""What a model learns from masked inputs. An objective is one file of this room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat

from .settings import EncoderSettings


@dataclass(frozen=True)
class Facts:
    """What is known of a batch's samples beside their values."""

    #: int64 [B, k], the numbers of the files that a sample is made of, on the host: of one, or of
    #: two that are mixed. None where every sample is of files of its own.
    files: Tensor | None = None
    #: int64 [B, 3] of inputs whose padding is hidden: how many values along (T, H, W) are real.
    real: dict[str, Tensor] = field(default_factory=dict)


NO_FACTS = Facts()


class Objective(Protocol):
    """A model's settings, and what it learns: a frozen dataclass that inherits from this.

    Inputs, masks and grids are dicts by the names of the modality's inputs. `model` is what `build`
    made.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def grids(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        """Patches of each input that is masked, along (T, H, W)."""

    def unmasked(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        """Patches of inputs that are not masked and may be padded. By default there are none."""
        return {}

    def build(
        self, inputs: dict[str, InputFormat], seed: int, checkpoint_activations: bool = False
    ) -> nn.Module:
        """The model with the seed's weights: the same on every device. With
        `checkpoint_activations` its blocks compute theirs again for the gradients."""

    def losses(
        self,
        forward: Callable[..., Any],
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
        facts: Facts = NO_FACTS,
    ) -> dict[str, Tensor]:
        """Scalars of normalised inputs [B, C, T, H, W], "loss" among them; it calls `forward` in
        place of the model, once. `valid`, bool [B, N], has the inputs that may be padded: tokens
        that are not valid are never visible, and belong in no loss."""

    @property
    def reported(self) -> tuple[str, ...]:
        """What `losses` has beside "loss". By default nothing."""
        return ()

    @property
    def encoder(self) -> EncoderSettings | None:
        """Of the only input. By default unknown."""
        return None

    @property
    def compares(self) -> tuple[str, ...]:
        """Losses that compare samples of different files. By default none."""
        return ()

    def after_update(self, model: Any) -> None:
        """What is to be done after every step of the optimiser. By default nothing."""
        return None

    def watch(self) -> Callable[[dict[str, Any]], str | None] | None:
        """What is told each step's row of metrics.jsonl and gives a line for the user, or None: as
        `Task.watch`, a new one for each run. By default nobody watches."""
        return None

    #: What pictures call that which `restore` makes.
    picture_row: ClassVar[str] = "restored"

    @property
    def picture_note(self) -> str:
        """What pictures say below, so that nobody takes their last row for more than it is. By
        default nothing."""
        return ""

    def restore(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Inputs whose masked patches are what the model makes of them, for pictures. `valid` as in
        `losses`."""

    def export(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        """Write the encoder with the metadata, whole or not at all."""
