"""Machine: what this computer has, and how to use it: device, cores, memory that is kept, versions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from transfer import __version__
from transfer.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


@functools.cache
def keep_memory() -> bool:
    """Tell glibc to keep freed memory for the next layer instead of giving it back to the kernel.

    By default every large activation is unmapped and faulted in again, 24,000 page faults per image at batch 64;
    keeping it made a float32 forward pass 1.5 to 3 times as fast. Elsewhere than on Linux with glibc there is nothing
    to do. Returns whether it was done.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # each arena keeps memory of its own: as many as there are threads that need much
    settings = {
        _M_ARENA_MAX: count_cores() + 1,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: 64 << 20,
    }
    return all(mallopt(name, value) for name, value in settings.items())


def give_memory_back() -> None:
    """Give memory that is free, and kept by `keep_memory`, back to the system, where glibc can."""
    if keep_memory():
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has held so far, None where the system does not tell."""
    # the kernel's other counter, below, starts from what the parent held when it made this process
    with contextlib.suppress(OSError), open("/proc/self/status") as source:
        for line in source:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes


def count_cores() -> int:
    """Return how many CPU cores this process may use, a container's share of them included."""
    affinity = getattr(os, "sched_getaffinity", None)
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    share = _container_share()
    return max(1, min(n_cores, math.ceil(share))) if share else n_cores


def _container_share(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many cores' worth of time Linux's control groups grant, None without a limit."""
    for file, values in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ):  # version 2, version 1
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            words = (root / file).read_text().split()
            words += (root / values).read_text().split() if values else []
            quota, period = float(words[0]), float(words[1])  # "max 100000" is no number
            return quota / period if quota > 0 else None
    return None


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError
        The name is not a device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(device.type)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"Device {name!r} is not usable here. Use --device cpu, cuda, cuda:1, mps or auto.") from error
    return device


def describe_device(device: torch.device) -> str:
    """Return the name of the processor or graphics card that computes, with the number of cores of a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{describe_processor()}, {count_cores()} cores, {device.type}"


def describe_processor() -> str:
    """Return the processor's name as far as the system tells it, for records of what a speed was measured on."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError), open("/proc/cpuinfo") as source:
            for line in source:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def narrow_types(device: torch.device) -> list[str]:
    """Return the types of 16 bits in which this device may compute faster than in float32.

    Never float16: activations of some networks overflow in it.
    """
    if device.type == "cpu":
        return ["bfloat16"] if bfloat16_may_pay() else []
    # from Ampere on; older cards only emulate it
    return ["bfloat16"] if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8 else []


@functools.cache
def bfloat16_may_pay() -> bool:
    """Tell, by timing one convolution, whether this CPU computes faster in bfloat16: some only emulate it."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    seconds = {}
    with torch.inference_mode(), torch_threads(1):
        for dtype in (torch.float32, torch.bfloat16):
            images = torch.zeros(4, 128, 28, 28, dtype=dtype).contiguous(memory_format=torch.channels_last)
            convolution = torch.nn.Conv2d(128, 128, 1).to(dtype).to(memory_format=torch.channels_last)
            times = []
            for _ in range(4):
                started = time.perf_counter()
                convolution(images)
                times.append(time.perf_counter() - started)
            seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Keep CUDA from computing float32 in TF32, which has 10 bits of mantissa, inside the block."""
    with repeatable(device, exact=True, deterministic=False):
        yield


@contextlib.contextmanager
def repeatable(device: torch.device, *, exact: bool, deterministic: bool = True) -> Iterator[None]:
    """Have CUDA's convolutions give the same result each time inside the block, and without TF32 where `exact`."""
    if device.type != "cuda":
        yield
        return
    before = None
    with contextlib.suppress(RuntimeError):  # raised where the caller uses torch's newer `fp32_precision`
        before = torch.get_float32_matmul_precision()
        if exact:
            torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=deterministic, allow_tf32=not exact):
            yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)


def work_ahead(
    work: Callable[[T], R], items: Iterable[T], *, n_workers: int, n_ahead: int, n_threads: int = 1
) -> Iterator[R]:
    """Yield `work(item)` in order, done ahead by `n_workers` threads that have `n_threads` of torch's each."""
    with ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(n_threads,)) as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) > n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Set torch's threads per operation inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "pillow")
    return {"transfer": __version__, **{name: version(name) for name in names}}
