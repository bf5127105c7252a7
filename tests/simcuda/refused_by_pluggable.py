"""The 20 calls of torch's CUDAAllocator interface that torch's own way in for other allocators, CUDAPluggableAllocator, refuses or answers with a failing default: each by
name (calls.cpp), under native's allocator and under reprise's, on the *simulated* device. And the one that needs a second process."""

import ctypes
import os
import pathlib
import pickle
import subprocess
import sys

import simcuda
from simulated import Family

CALLS = ("getMemoryFraction", "getExpandableSegmentSizes", "cacheInfo", "getDeviceStats", "resetAccumulatedStats", "resetPeakStats", "snapshot", "shareIpcHandle",
         "getIpcDevPtr", "recordHistory", "attachOutOfMemoryObserver", "attachAllocatorTraceTracker", "getCheckpointState", "setCheckpointPoolState", "getPoolUseCount",
         "createOrIncrefPool", "setUseOnOOM", "setNoSplit", "checkPoolLiveAllocations", "isHistoryEnabled")
FAMILIES = {"refused": Family()}
refused = FAMILIES["refused"]


def what_goes_wrong(name, pluggable=False):
    library = ctypes.CDLL(str(simcuda.folder() / "libsimcuda_calls.so"))
    library.simcuda_call.restype = ctypes.c_char_p
    torch.cuda.init()
    text = library.simcuda_call(name.encode(), int(pluggable))
    return None if text is None else text.decode()


def behaviour_of(name):
    def works(device):
        wrong = what_goes_wrong(name)
        assert wrong is None, wrong

    works.__name__ = name
    return works


for call in CALLS:
    refused(behaviour_of(call))


@refused
def the_pluggable_allocator_refuses_every_one(device):
    """So each of the checks above can fail."""
    works = [name for name in CALLS if what_goes_wrong(name, pluggable=True) is None]
    assert not works, works


@refused
def a_pool_s_filter_is_asked_once_a_request(device):
    wrong = what_goes_wrong("a filter is asked once")
    assert wrong is None, wrong


OTHER_PROCESS = """
import pickle, sys
import simcuda
simcuda.activate()
import torch
rebuild, arguments = pickle.loads(sys.stdin.buffer.read())
shared = rebuild(*arguments)
print(int(shared.cpu().sum()), flush=True)
shared.copy_(torch.full_like(shared, 5, device="cpu"))
torch.cuda.synchronize()
"""


@refused
def two_processes_share_a_pool_s_memory(device):
    """shareIpcHandle here, getIpcDevPtr there: as torch.multiprocessing sends a CUDA tensor."""
    from torch.multiprocessing.reductions import reduce_tensor

    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        mine = torch.full((3000,), 2, dtype=torch.uint8).cuda()
    torch.cuda.synchronize()
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    other = subprocess.run([sys.executable, "-c", OTHER_PROCESS], input=pickle.dumps(reduce_tensor(mine)), capture_output=True, timeout=120,
                           env={**os.environ, "PYTHONPATH": path})
    assert other.returncode == 0, other.stderr.decode()
    assert other.stdout.decode().strip() == "6000", other.stdout
    assert mine.cpu().eq(5).all(), "what the other process wrote is not seen here"


if __name__ == "__main__":
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    family.run(simulator)
