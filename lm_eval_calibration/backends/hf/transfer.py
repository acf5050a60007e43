"""Between the host's memory and the device's: while the host waits for a transfer, the device idles.

So lists go to the device without waiting for what it still computes, and a batch's results come back in one transfer.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(values: Any, device: torch.device) -> torch.Tensor:
    """Return integers (a tensor on the host, or lists of equal lengths) on the device."""
    integers = torch.as_tensor(values, dtype=torch.long)
    if device.type == "cuda":  # only from pinned memory is the copy not waited for
        integers = integers.pin_memory()
    return integers.to(device, non_blocking=True)


class Fetch:
    """Tensors on their way to the host, in one transfer that begins at once; the device may be given more to do."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.shapes = [tensor.shape for tensor in tensors]
        # Layers may be spread over devices.
        self.flat = torch.cat([tensor.flatten().to(tensors[0]) for tensor in tensors])
        self.arrival = None
        if self.flat.device.type == "cuda" and torch.cuda.is_available():  # a simulated one has no streams
            there = torch.empty(self.flat.shape, dtype=self.flat.dtype, pin_memory=True)
            there.copy_(self.flat, non_blocking=True)
            self.arrival = torch.cuda.current_stream(self.flat.device).record_event()
            self.flat = there

    def arrays(self) -> list[NDArray[np.float64]]:
        """Return arrays of the tensors' shapes, float64, transferred in the first one's dtype."""
        if self.arrival is not None:
            self.arrival.synchronize()
        parts = torch.split(self.flat.cpu().double(), [shape.numel() for shape in self.shapes])
        return [part.view(shape).numpy() for part, shape in zip(parts, self.shapes, strict=True)]


def to_host(*tensors: torch.Tensor) -> list[NDArray[np.float64]]:
    """Return the tensors as arrays of their shapes, float64, fetched together in the first one's dtype."""
    return Fetch(*tensors).arrays()
