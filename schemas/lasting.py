"""What a process keeps as long as it runs: objects, and the memory that it has used once."""

import ctypes
import gc

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h
KEPT = {
    M_TRIM_THRESHOLD: 256 << 20,
    M_TOP_PAD: 16 << 20,
    M_MMAP_THRESHOLD: 32 << 20,  # the most that it takes
    M_ARENA_MAX: 1,  # the interpreter's lock lets one thread at a time allocate, or nearly so
}


def keep_for_good() -> None:
    """Spare what is there now, imports above all, from every later collection.

    A full one looked at 130,000 objects for 50 to 80 ms, and stopped everybody meanwhile.
    Call it once a service is ready.
    """
    gc.collect()
    gc.freeze()


def keep_memory(*, arrow: bool = True) -> None:
    """Keep what is freed for the next block, where the C library is glibc; Arrow's if it is used.

    A block is some megabytes in arrays that live for milliseconds. Given back to the system each
    time, they cost a seventh of the counter's CPU in page faults. Call it first of all.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in KEPT.items():
        mallopt(option, value)
    if arrow:
        import pyarrow as pa

        pa.set_memory_pool(pa.system_memory_pool())
