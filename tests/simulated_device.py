"""A device that isn't there: tensors that say they lie on ``cuda:0`` or ``cuda:1`` and compute on the CPU.

So paths for accelerators run in CI, and their numbers can be compared. As on a real device, an operation on tensors of
two devices is an error, and what the host must wait for is counted: a copy to it, a value that it asks for, a result
whose size depends on values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")

COPIES = (aten._to_copy.default, aten.copy_.default)
SIZED_BY_VALUES = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive}
ASKS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose}
TAKES_INDICES_FROM_THE_HOST = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class MixedDevicesError(RuntimeError):
    """An operation on tensors of different devices."""


class Elsewhere(torch.Tensor):
    """A tensor on the device, around the one on the CPU that holds its values."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> "Elsewhere":
        self = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device,
        )  # fmt: skip
        self.inner = inner
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return dispatch(function, arguments, options or {}, None)


class Simulation(TorchDispatchMode):
    """Operations while this is open; what they made the host wait for is counted.

    Attributes:
        waits: names of operations for which the host waited.
        pageable: uploads from memory that is not pinned, or that are waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.pageable: list[tuple[int, ...]] = []
        self._pinned: list[torch.Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is aten._pin_memory.default:
            self._pinned.append(arguments[0].clone())
            return self._pinned[-1]
        if function is aten.is_pinned.default:
            return any(arguments[0] is tensor for tensor in self._pinned)
        return dispatch(function, arguments, options or {}, self)

    def count(self, function: Any, arguments: Any, options: Any, on: set[torch.device], device: torch.device) -> None:
        kind = function.overloadpacket
        is_awaited = not (function is aten.copy_.default and True in arguments[2:])  # else for an event
        to_host = function in COPIES and device.type == "cpu" and on and is_awaited
        if (to_host or kind in SIZED_BY_VALUES or kind in ASKS) and on:
            self.waits.append(str(kind))
        if function in COPIES and not on and device.type != "cpu":
            source = arguments[1] if function is aten.copy_.default else arguments[0]
            is_pinned = any(source is tensor for tensor in self._pinned)
            if source.dim() and source.numel() and not (is_pinned and options.get("non_blocking")):
                self.pageable.append(tuple(source.shape))


def dispatch(function: Any, arguments: Any, options: Any, simulation: Simulation | None) -> Any:
    leaves = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, torch.Tensor)]
    on = {leaf.device for leaf in leaves if isinstance(leaf, Elsewhere)}
    device = _device_of_result(function, arguments, options, on)
    if simulation is not None:
        simulation.count(function, arguments, options, on, device)
    if function not in COPIES:
        beside = [leaf for leaf in leaves if not isinstance(leaf, Elsewhere) and leaf.dim()]
        if len(on) > 1 or (on and beside and function.overloadpacket not in TAKES_INDICES_FROM_THE_HOST):
            where = [f"{tuple(leaf.shape)} on {leaf.device}" for leaf in leaves]
            raise MixedDevicesError(f"{function} of tensors {', '.join(where)}")
    wrappers = {id(leaf.inner): leaf for leaf in leaves if isinstance(leaf, Elsewhere)}
    arguments, options = tree_map(_inner, (arguments, options))
    if "device" in options:
        options = {**options, "device": torch.device("cpu")}
    result = function(*arguments, **{k: v for k, v in options.items() if k != "pin_memory"})
    if device.type == "cpu":
        return result

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return wrappers[id(value)] if id(value) in wrappers else Elsewhere(value, device)

    return tree_map(wrapped, result)


def _device_of_result(function: Any, arguments: Any, options: Any, on: set[torch.device]) -> torch.device:
    if function is aten.copy_.default:
        return arguments[0].device  # type: ignore[no-any-return]
    if options.get("device") is not None:
        return torch.device(options["device"])
    return next(iter(on), torch.device("cpu"))


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


WITHOUT_DRIVER = {
    torch.Tensor.__float__: lambda x: float(x.item()),
    torch.Tensor.__int__: lambda x: int(x.item()),
    torch.Tensor.__bool__: lambda x: bool(x.item()),
    torch.Tensor.tolist: lambda x: x.cpu().tolist(),
    torch.Tensor.nonzero: aten.nonzero,
    torch.Tensor.__invert__: aten.bitwise_not,
    torch.Tensor.contiguous: lambda x: x if x.is_contiguous() else x.clone(memory_format=torch.contiguous_format),
}


class _WithoutDriver(TorchFunctionMode):
    """What would look for the device's driver before it dispatches: values from lists, brackets, some methods."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self.simulation = simulation

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        device = options.get("device")
        if function in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == "cuda":
            del options["device"]
            return function(*arguments, **options).to(device)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            return self._brackets(function, *arguments)
        if function in WITHOUT_DRIVER and isinstance(arguments[0], Elsewhere):
            return WITHOUT_DRIVER[function](arguments[0])
        return function(*arguments, **options)

    def _brackets(self, function: Any, tensor: Any, index: Any, *value: Any) -> Any:
        indices = [leaf for leaf in tree_leaves(index) if isinstance(leaf, torch.Tensor)]
        if any(leaf.device not in (tensor.device, torch.device("cpu")) for leaf in indices):
            raise MixedDevicesError(f"index on {[leaf.device for leaf in indices]} of a tensor on {tensor.device}")
        if not isinstance(tensor, Elsewhere):
            return function(tensor, index, *value)
        if any(leaf.dtype == torch.bool for leaf in indices):
            self.simulation.waits.append("mask")
        result = function(*tree_map(_inner, (tensor, index, *value)))
        return Elsewhere(result, tensor.device) if isinstance(result, torch.Tensor) else result


@contextmanager
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """Let there be two devices."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    with Simulation() as simulation, _WithoutDriver(simulation):
        event = SimpleNamespace(synchronize=lambda: simulation.waits.append("event"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(record_event=lambda: event))
        yield simulation


def move(module: torch.nn.Module, device: torch.device) -> None:
    """Put a module's weights and buffers on the device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and not isinstance(weight, Elsewhere):
                part._parameters[name] = torch.nn.Parameter(Elsewhere(weight.detach(), device), weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, Elsewhere):
                part._buffers[name] = Elsewhere(buffer, device)


def on_device(lm: Any, device: torch.device = FIRST) -> Any:
    """Let the harness's backend have its model on the device."""
    move(lm.model, device)
    lm._device = device
    return lm


def over_both(lm: Any, *, returns_to_the_first: bool) -> Any:
    """Let the backend have its GPT-2 spread over two devices, by accelerate's hooks as with ``device_map="auto"``."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    transformer = lm.model.transformer
    places = dict.fromkeys((transformer.wte, transformer.wpe, transformer.h[0]), FIRST)
    places |= dict.fromkeys((transformer.h[1], transformer.ln_f, lm.model.lm_head), SECOND)
    for module, device in places.items():
        move(module, device)
        add_hook_to_module(module, AlignDevicesHook(execution_device=device))
    if returns_to_the_first:
        add_hook_to_module(lm.model, AlignDevicesHook(execution_device=FIRST, io_same_device=True))
    lm._device = FIRST
    return lm
