"""REPRISE_NVTX=1: a tool that listens to NVTX's memory regions (nvtx_tool.cpp stands in for compute-sanitizer) knows exactly what is live. On the *simulated* device."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import named_tests  # noqa: E402
import simcuda  # noqa: E402
from test_own_allocator import START, WHO_SERVES, run  # noqa: E402

TOOL = simcuda.folder() / "libnvtx_tool.so"
pytestmark = [named_tests.not_built, pytest.mark.skipif(not TOOL.exists(), reason="no nvtx3/nvToolsExtMem.h was found: cmake says so")]

# The tool's own account against torch's snapshot of what is live.
LISTEN = START.replace("activate()", "activate(devices=2)") + """
import ctypes, os, random
tool = ctypes.CDLL(os.environ["TOOL"])
for name in ("calls", "mistakes", "heaps", "regions"):
    getattr(tool, f"nvtx_tool_{name}").restype = ctypes.c_uint64
MOST = 4096
def heard(what):
    firsts, sizes = (ctypes.c_uint64 * MOST)(), (ctypes.c_uint64 * MOST)()
    return {(firsts[i], sizes[i]) for i in range(getattr(tool, f"nvtx_tool_{what}")(firsts, sizes, MOST))}
def live():
    return {(block["address"], block["requested_size"]) for segment in torch.cuda.memory_snapshot() for block in segment["blocks"] if block["state"] == "active_allocated"}
"""

PROGRAM = LISTEN + """
draw, kept, side = random.Random(7), [], torch.cuda.Stream()
for _ in range(300):
    if kept and (len(kept) > 20 or draw.random() < 0.45):
        kept.pop(draw.randrange(len(kept)))
    else:
        tensor = torch.empty(draw.choice([1, 500, 70_000, 3 << 20, 40 << 20]), dtype=torch.uint8, device=draw.choice(["cuda:0", "cuda:1"]))
        if tensor.device.index == 0 and draw.random() < 0.3:
            with torch.cuda.stream(side):
                torch.cuda._sleep(1_000_000)
            tensor.record_stream(side)
        kept.append(tensor)
        del tensor
    if draw.random() < 0.05:
        torch.cuda.empty_cache()
    assert heard("regions") == live(), (heard("regions") ^ live())
print(len(heard("heaps")), sorted({size >> 20 for _, size in heard("heaps")}), tool.nvtx_tool_mistakes(), len(heard("regions")) > 0)
"""


@pytest.mark.parametrize(("way", "arena_mib"), [("vmm", 16 * 4096), ("malloc", 4096 * 7 // 8)])
def test_the_tool_knows_what_is_live_after_every_allocation_and_free(way, arena_mib):
    assert run(PROGRAM, REPRISE_NVTX="1", NVTX_INJECTION64_PATH=str(TOOL), TOOL=str(TOOL), REPRISE_CUDA_DEVICE=way) == (f"2 [{arena_mib}] 0 True", "")


def test_the_tool_knows_what_is_live_in_a_training_step():
    script = LISTEN + """
model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)]).cuda()
import reprise
reprise.auto_checkpoint(model, None, policy="full")
looks = []
def look(*_):
    assert heard("regions") == live()
    looks.append(len(live()))
for layer in model:
    layer.register_forward_hook(look)
    layer.weight.register_hook(look)
for _ in range(3):
    model(torch.ones(512, 64, device="cuda")).sum().backward()
    look()
print(len(looks), tool.nvtx_tool_mistakes())
"""
    assert run(script, REPRISE_NVTX="1", NVTX_INJECTION64_PATH=str(TOOL), TOOL=str(TOOL), REPRISE_LOG="0") == ("27 0", "")


@pytest.mark.parametrize("switch", [{}, {"REPRISE_NVTX": "0"}])
def test_nothing_is_called_when_it_is_off(switch):
    script = LISTEN + "kept = torch.ones(1 << 20, device='cuda')\ndel kept\nprint(tool.nvtx_tool_calls())\n"
    assert run(script, NVTX_INJECTION64_PATH=str(TOOL), TOOL=str(TOOL), **switch) == ("0", "")


def test_without_a_tool_it_says_so():
    said = "reprise: REPRISE_NVTX=1, but device 0 tells nobody of memory regions: no tool that takes them is attached"
    assert run(START + WHO_SERVES, REPRISE_NVTX="1") == ("reprise", said)


def test_another_word_is_named_and_off():
    script = LISTEN + "kept = torch.ones(1 << 20, device='cuda')\nprint(tool.nvtx_tool_calls())\n"
    printed, said = run(script, REPRISE_NVTX="yes", NVTX_INJECTION64_PATH=str(TOOL), TOOL=str(TOOL))
    assert printed == "0"
    assert said == 'reprise: environment REPRISE_NVTX: "yes" is neither 0 (off) nor 1 (memory regions for compute-sanitizer); it is off'
