"""How many cores there are to work on."""

import os


def usable_cores() -> int:
    """Cores that this process may use; all there are where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
