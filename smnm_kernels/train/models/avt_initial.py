"""The weights with which AVT begins where its two encoders were trained by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smnm_kernels.train.data.modality import InputFormat

from .audio_video_encoder import MODALITIES
from .avt_encoder import FusedEncoderSettings
from .formats.state import State, digest_of
from .formats.weights import Weights
from .fusion import FusionSettings
from .initial import Start, encoder_at, other_inputs


def start_from_encoders(
    given: Mapping[str, Weights], fusion: FusionSettings, inputs: Mapping[str, InputFormat]
) -> Start:
    """Encoders of "video" and of "audio" as they were trained, in front of fusion that starts anew.

    Blocks, patches, class token and norms are theirs; only positions follow another size of the
    input, by `resizing.at_size`. An encoder without a norm behind its last block gets one.

    Raises:
        ValueError: where they differ in width, or their patches do not fill the input.
    """
    state: State = {}
    settings, said, digests = {}, [], []
    for name in MODALITIES:
        weights, of_input = given[name], inputs[name]
        try:
            encoder, how = encoder_at(weights, of_input)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        lines = ["the encoder's weights are taken", *how]
        if not encoder.settings.final_norm:
            lines.append("the norm behind its last block starts anew: it has none")
        said += [f"{name}: {line}" for line in (*lines, *other_inputs(weights, of_input))]
        settings[name] = replace(encoder.settings, final_norm=True)
        tensors = encoder.state_dict().items()
        state |= {f"encoder.encoders.{name}.{of}": tensor for of, tensor in tensors}
        digests.append(digest_of(weights.state))
    dims = {name: of_one.dim for name, of_one in settings.items()}
    if len(set(dims.values())) > 1:
        widths = " and ".join(f"{name}'s {dim}" for name, dim in dims.items())
        raise ValueError(f"encoders that are fused must be equally wide, got {widths}")
    model = FusedEncoderSettings(settings["video"], settings["audio"], fusion)
    return Start(state, model, " ".join(digests), (*said, "fusion starts anew"))
