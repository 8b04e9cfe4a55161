"""Sizes of the models of Hugging Face's transformers that masks go into here."""

# Wide weights, so that what a model sees shows in what it says.
WIDTH = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "initializer_range": 0.3,
}
VIT = {
    **WIDTH,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 32,
    "patch_size": 8,
}
