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


def to_host(*tensors: torch.Tensor) -> list[NDArray[np.float64]]:
    """Return the tensors as arrays of their shapes, float64, fetched together in the first one's dtype."""
    flat = torch.cat([tensor.flatten().to(tensors[0]) for tensor in tensors])  # layers may be spread over devices
    parts = torch.split(flat.cpu().double(), [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).numpy() for part, tensor in zip(parts, tensors, strict=True)]
