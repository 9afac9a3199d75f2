"""Which sizes of batches a model sees, and which of them are tried before it is ready. Pure.

Knows: the keys of `model.toml` that say so. Must not know: torch, requests, what a batch holds.

A model with buckets sees no other sizes: a batch is padded up to the next bucket. CUDA graphs and
`torch.compile` are made for fixed sizes, so on a GPU they get powers of two where nobody said anything.
"""

from __future__ import annotations

from headway.models import ModelSpec


def buckets_of(spec: ModelSpec, on_gpu: bool) -> tuple[int, ...]:
    """The model's buckets, rising; empty: batches are not padded."""
    if spec.batch_buckets or not on_gpu:
        return spec.batch_buckets
    is_fixed = spec.cuda_graphs or bool(spec.options.get("compile"))
    return powers_of_two(spec.batch_size_max) if is_fixed else ()


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to `most`, which is the last whether it is one or not."""
    return (*(1 << i for i in range((most - 1).bit_length())), most)


def bucket_of(rows: int, buckets: tuple[int, ...]) -> int:
    """The size that a batch of `rows` is padded to; its own where no bucket is large enough."""
    return next((bucket for bucket in buckets if bucket >= rows), rows)


def sizes_to_try(spec: ModelSpec, buckets: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Sizes that warm-up must run (a model sees each bucket), and such as it runs if that is quick: without
    buckets the least and the largest, and what lies between. In the order in which to run them."""
    if buckets:
        return list(buckets), []
    powers = powers_of_two(spec.batch_size_max)
    return sorted({powers[0], powers[-1]}), list(powers[-2:0:-1])
