"""The peak of this process on each CUDA device, as torch's caching allocator counts it."""

from __future__ import annotations


def reset_peaks() -> bool:
    """Start counting anew on every device; return whether there is a device."""
    import torch

    if not torch.cuda.is_available():
        return False
    for device in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(device)
    return True


def device_peaks() -> dict[str, int]:
    """Return the largest number of allocated bytes since reset_peaks(), by device ("cuda:0")."""
    import torch

    return {f"cuda:{device}": torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())}
