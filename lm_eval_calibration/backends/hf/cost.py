"""What calls of a model cost on a device, counted: operations, bytes of weights, calls. Nothing here runs a model.

A call takes as long as its arithmetic or as reading the weights, whichever is longer, and no less than the host needs
to launch its operations. From that follow how large packs should be and whether sharing prefixes pays at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch


class Model(NamedTuple):
    """What counts of a causal language model."""

    layer_weights: int  # weights that every token is multiplied with
    output_weights: int  # of the output layer, multiplied with every position that gets logits
    layers: int
    width: int  # query heads times head dimension
    vocab_size: int
    itemsize: int  # bytes of a weight


class Device(NamedTuple):
    """What counts of a device: rates that long calls reach, not those of a data sheet."""

    name: str
    operations: float  # a second
    bandwidth: float  # bytes a second
    launch: float  # seconds that the host needs for an operation
    multiple: int  # lengths are padded to multiples of this
    most_tokens: int  # no pack is larger
    most_logits: int  # bytes


CPU = Device("CPU, one thread", 6e10, 1e10, 1.4e-5, 1, 1024, 1 << 28)
"""Operations: float32 matrix products of one thread of an AMD EPYC, measured once. The others are rough."""

H100 = Device("H100", 0.7 * 989e12, 0.8 * 3.35e12, 5e-6, 128, 2048, 1 << 30)
"""NVIDIA's data sheet of the SXM version (bfloat16 without sparsity; memory), times what large matrix products and
copies usually reach. Stands for every accelerator."""

PLAIN_LAUNCHES, PACK_LAUNCHES = 36, 60
"""Operations that a layer of a Llama launches, counted (views launch nothing): in a plain batch, and in a pack, where
each block of its attention (see :mod:`layout`) is one more."""


class Call(NamedTuple):
    """One call of the model."""

    tokens: int  # read, padding included
    attended: float  # keys that all its tokens are compared with, summed
    logits: int  # positions with logits
    launches: int = PLAIN_LAUNCHES  # of a layer


class Parts(NamedTuple):
    """Seconds that each part of some calls would take if the device or the host did nothing else."""

    products: float  # of the layers' weights
    attention: float
    output_layer: float
    weights: float  # reading them
    launches: float

    @property
    def arithmetic(self) -> float:
        """Of the device."""
        return self.products + self.attention + self.output_layer

    @property
    def longest(self) -> float:
        """Of one call: arithmetic, reading the weights and launching go on at the same time."""
        return max(self.arithmetic, self.weights, self.launches)


def model_of(model: Any, config: Any) -> Model:
    """Return what counts of a loaded model with this text configuration (1 for what it doesn't say)."""
    layers, heads = (getattr(config, name, None) or 1 for name in ("num_hidden_layers", "num_attention_heads"))
    output, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    weights = {id(weight): weight.numel() for weight in model.parameters()}
    for weight in (output, embedding):
        weights.pop(id(weight), None)  # an embedding is looked up, not read
    head_dim = getattr(config, "head_dim", None) or getattr(config, "hidden_size", heads) // heads
    return Model(sum(weights.values()), output.numel(), layers, heads * head_dim, len(output), output.element_size())


def device_of(device: torch.device) -> Device:
    """Return what counts of a device."""
    if device.type != "cpu":
        return H100
    return CPU._replace(operations=CPU.operations * torch.get_num_threads())


def parts(model: Model, device: Device, call: Call) -> Parts:
    """Return what a call's parts take: 2 operations a weight and token, 4 an entry of attention and dimension."""
    return Parts(
        2.0 * model.layer_weights * call.tokens / device.operations,
        4.0 * model.layers * model.width * call.attended / device.operations,
        2.0 * model.output_weights * call.logits / device.operations,
        (model.layer_weights + model.output_weights) * model.itemsize / device.bandwidth,
        model.layers * call.launches * device.launch,
    )


def seconds(model: Model, device: Device, calls: Iterable[Call]) -> float:
    """Estimate how long calls take, one after the other.

    max(operations / rate, bytes of weights / bandwidth, launches) of each call, summed. The estimate leaves out what
    grows with tokens but is no matrix product (norms, activations): a third more on a GPU is usual.
    """
    return sum(parts(model, device, call).longest for call in calls)


def sum_of_parts(model: Model, device: Device, calls: Iterable[Call]) -> Parts:
    """Return each part's seconds, summed over calls: what an estimate is made of."""
    return Parts(*map(sum, zip(*(parts(model, device, call) for call in calls), strict=True)))


def fits(model: Model, device: Device, calls: Iterable[Call]) -> bool:
    """Whether no call has more logits than the device should hold."""
    return all(call.logits * model.vocab_size * model.itemsize <= device.most_logits for call in calls)


def padded(length: int, device: Device) -> int:
    """Return the length up to which a pack of so many tokens is filled."""
    return -(-length // device.multiple) * device.multiple


def plain_calls(lengths: Sequence[int], n_scored: Sequence[int], batch_size: int) -> Iterator[Call]:
    """Yield the calls for rows in batches, longest first, each padded to its longest."""
    rows = sorted(zip(lengths, n_scored, strict=True), reverse=True)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        tokens = len(batch) * batch[0][0]
        yield Call(tokens, tokens * batch[0][0] / 2, sum(n for _, n in batch))


def stock_calls(lengths: Sequence[int], batch_size: int) -> Iterator[Call]:
    """Yield the calls of a stock run: as plain ones, with logits for every token."""
    for call in plain_calls(lengths, [0] * len(lengths), batch_size):
        yield call._replace(logits=call.tokens)
