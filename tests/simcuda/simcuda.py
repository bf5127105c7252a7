"""Puts the simulated CUDA devices under torch. Everything shown on them is *simulated*.

    import simcuda
    device = simcuda.activate(memory_mib=4096)    # before `import torch`
    import torch                                  # torch.cuda.is_available() is True

A library whose soname is loaded already wins over every search path, so ours are loaded by path, with global symbols, before torch asks for them.
Never under NVIDIA's own libcudart: all of them are replaced.
"""

import ctypes
import os
import pathlib
import sys

FIRST = ("libcuda.so.1", "libcudart.so", "libcublasLt.so", "libcublas.so")  # in this order; the others need only these


def folder():
    return pathlib.Path(os.environ.get("SIMCUDA_FOLDER") or os.path.join(os.environ["REPRISE_BUILD"], "tests", "simcuda"))


def built():
    return (folder() / "libcuda.so.1").exists()


def load(memory_mib=4096, devices=1, late=False):
    """Loads the simulator. late: work of side streams runs only when something waits for it."""
    if "torch" in sys.modules:
        raise RuntimeError("simcuda must be loaded before torch is imported")
    os.environ.update(SIMCUDA_MEMORY_MIB=str(memory_mib), SIMCUDA_DEVICES=str(devices), SIMCUDA_LATE="1" if late else "0")
    names = sorted(path.name for path in folder().glob("lib*.so.*"))
    names.sort(key=lambda name: next((i for i, start in enumerate(FIRST) if name.startswith(start)), len(FIRST)))
    for name in names:
        ctypes.CDLL(str(folder() / name), mode=ctypes.RTLD_GLOBAL)
    return Simulator(ctypes.CDLL(str(folder() / "libcuda.so.1")))


def activate(numeric=False, **options):
    """The same, and torch on top of it; numeric: every CUDA operator computes, on the CPU."""
    simulator = load(**options)
    import torch

    torch.backends.cudnn.enabled = False
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
