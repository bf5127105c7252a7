"""Puts the simulated CUDA devices under torch. Everything shown on them is *simulated*.

    import simcuda
    device = simcuda.activate(memory_mib=4096)    # before `import torch`
    import torch                                  # torch.cuda.is_available() is True

A library whose soname is loaded already wins over every search path, so ours are loaded by path, with global symbols, before torch asks for them.
Never under NVIDIA's own libcudart: all of them are replaced.
"""

import atexit
import ctypes
import os
import pathlib
import sys
import threading
import time

FIRST = ("libcuda.so.1", "libcudart.so", "libcublasLt.so", "libcublas.so")  # in this order; the others need only these


def folder():
    return pathlib.Path(os.environ.get("SIMCUDA_FOLDER") or os.path.join(os.environ["REPRISE_BUILD"], "tests", "simcuda"))


def built():
    return (folder() / "libcuda.so.1").exists()


def libraries():
    """Paths, in the order in which they are to be loaded."""
    names = sorted(path.name for path in folder().glob("lib*.so.*"))
    names.sort(key=lambda name: next((i for i, start in enumerate(FIRST) if name.startswith(start)), len(FIRST)))
    return [folder() / name for name in names]


def let_threads_come_to_rest():
    """At exit. A device thread of autograd's may still let go of Python objects when backward() has returned; if Python finalises meanwhile, it ends that thread at its
    next wish for the GIL, in the middle of a destructor: std::terminate, "without an active exception". It is torch's own, and happens without reprise as well; here it is
    frequent, because the simulated device is never what is waited for. So: until all other threads sleep, several looks in a row, while nobody holds the GIL."""
    me, quiet = threading.get_native_id(), 0
    for _ in range(1000):
        states = []
        for task in pathlib.Path("/proc/self/task").iterdir():
            if int(task.name) == me:
                continue
            try:
                states.append((task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0])
            except OSError:  # it ended
                continue
        quiet = quiet + 1 if all(state == "S" for state in states) else 0
        if quiet >= 5 or not states:
            return
        time.sleep(0.005)


def load(memory_mib=4096, devices=1, late=False, hollow=False, **shown):
    """Loads the simulator. late: work of side streams runs only when something waits for it. hollow: no host memory behind the device's, which may be as large
    as addresses go; numbers are then worth nothing. shown: name, capability, shown_mib (the size that programs are told), maps=0 (no virtual memory management)."""
    if "torch" in sys.modules:
        raise RuntimeError("simcuda must be loaded before torch is imported")
    os.environ.update(SIMCUDA_MEMORY_MIB=str(memory_mib), SIMCUDA_DEVICES=str(devices), SIMCUDA_LATE="1" if late else "0", SIMCUDA_HOLLOW="1" if hollow else "0",
                      **{f"SIMCUDA_{key.upper()}": str(value) for key, value in shown.items()})
    for path in libraries():
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    atexit.register(let_threads_come_to_rest)
    return Simulator(ctypes.CDLL(str(folder() / "libcuda.so.1")))


def activate(numeric=False, **options):
    """The same, and torch on top of it; numeric: every CUDA operator computes, on the CPU."""
    simulator = load(**options)
    import torch

    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    if numeric:
        simulator.redirect_operators()
    return simulator


class Simulator:
    """Counters, the clock and faults of the simulated devices."""

    def __init__(self, library):
        self._library = library
        for name in ("calls", "used", "peak", "launches"):
            getattr(library, f"simcuda_{name}").restype = ctypes.c_uint64
        library.simcuda_clock.restype = ctypes.c_int64

    def calls(self, name):
        """How often a function of the CUDA interface was called."""
        return self._library.simcuda_calls(name.encode())

    def fail(self, name, nth=1):
        """The nth call of that function from now on fails; 0 takes it back."""
        self._library.simcuda_fail(name.encode(), ctypes.c_uint64(nth))

    def used(self, device=0):
        """Bytes of the device that are taken, in pages of 2 MiB."""
        return self._library.simcuda_used(device)

    def peak(self, device=0):
        return self._library.simcuda_peak(device)

    def launches(self, device=0):
        """Kernels that were launched and did nothing: none, in numeric mode."""
        return self._library.simcuda_launches(device)

    def clock(self):
        """Virtual nanoseconds."""
        return self._library.simcuda_clock()

    def redirect_operators(self):
        library = ctypes.CDLL(str(folder() / "libsimcuda_numeric.so"))
        if library.simcuda_redirect_operators() == 0:
            raise RuntimeError("simcuda: no CUDA operator was found to redirect")
