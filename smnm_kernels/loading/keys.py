"""Sample ids of examples that have no index, as in streams: from their keys."""

from __future__ import annotations

from hashlib import blake2b

from torch import Tensor

from smnm_kernels.arguments import is_int


def sample_id_of_key(key: object, epoch: int = 0) -> int:
    """The id of an example's mask in [0, 2**63): a hash of the epoch and of the example's key.

    It depends on nothing else, so it is the same for any number of shards, workers and ranks, on
    every machine, and it never changes. Among n ids, over all epochs, about n**2 / 2**64 pairs are
    equal: of 1.3 million examples in 400 epochs, one pair in 70 such runs; of a thousand million
    ids, 0.05 pairs. The two examples then have the same mask, which does no harm.

    Args:
        key: a str, bytes, int, or tuple of these, such as (name of the shard, key); no two
            examples may have the same. An int is the same as a NumPy or torch integer of its value.
        epoch: a non-negative int.
    """
    hashed = blake2b(_as_bytes((epoch, key)), digest_size=8).digest()
    return int.from_bytes(hashed, "big") >> 1


def _as_bytes(key: object) -> bytes:
    """Unambiguous: no two different keys have the same."""
    if isinstance(key, Tensor) and key.numel() == 1 and not key.is_floating_point():
        key = key.item()
    if isinstance(key, str):
        kind, content = b"s", key.encode("utf-8", "surrogatepass")
    elif isinstance(key, bytes):
        kind, content = b"b", key
    elif is_int(key):
        kind, content = b"i", b"%d" % int(key)
    elif isinstance(key, tuple) and key:
        kind, content = b"t", b"".join(_as_bytes(part) for part in key)
    else:
        batches = ". A list is of a batch: wrap the dataset before it makes batches"
        raise TypeError(
            "an example's key must be a str, bytes, int, or a tuple of these, got "
            f"{key!r:.80}{batches if isinstance(key, list) else ''}"
        )
    return b"%b%d:%b" % (kind, len(content), content)
