"""State dicts of other codebases, to and from this one's: names, and shapes of what is the same.

Every function takes and gives a state dict, name -> tensor, and changes no number. Ours is that of
`MaskedAutoencoder.state_dict()`; an encoder alone goes in as `encoder_state(encoder)`, and where
theirs holds no decoder, ours then has none. `load_weights` puts ours into a model.
"""

from .hugging_face import (
    from_hf_videomae,
    from_hf_vitmae,
    hf_videomae_config,
    hf_vitmae_config,
    settings_of_hf_videomae,
    settings_of_hf_vitmae,
    to_hf_videomae,
    to_hf_vitmae,
)
from .original import from_mae, from_videomae, to_mae, to_videomae
from .state import encoder_part, encoder_state, load_weights, with_key_bias

__all__ = [
    "encoder_part",
    "encoder_state",
    "from_hf_videomae",
    "from_hf_vitmae",
    "from_mae",
    "from_videomae",
    "hf_videomae_config",
    "hf_vitmae_config",
    "load_weights",
    "settings_of_hf_videomae",
    "settings_of_hf_vitmae",
    "to_hf_videomae",
    "to_hf_vitmae",
    "to_mae",
    "to_videomae",
    "with_key_bias",
]
