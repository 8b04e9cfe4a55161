"""Comparing what two fine-tuning runs left."""

from clips import losses
from labelled_sets import evaluations, results
from safetensors import safe_open


def same_results(ours, theirs):
    assert losses(ours) == losses(theirs)
    assert evaluations(ours) == evaluations(theirs)
    assert (ours / "predictions.csv").read_bytes() == (theirs / "predictions.csv").read_bytes()
    for name in ("classifier.safetensors", "classifier-last.safetensors", "encoder.safetensors"):
        assert bytes_of(ours / name) == bytes_of(theirs / name)
    assert results(ours) == results(theirs)


def bytes_of(path):
    """Of a safetensors file, whose metadata have no order."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return file.metadata(), tensors
