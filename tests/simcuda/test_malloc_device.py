"""A GPU whose memory is one cuMemAlloc'd block (allocator/cuda/malloc_device.hpp): how it comes to that and how large it is, each in a process of its own, and block.py. *Simulated*."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import block  # noqa: E402
import named_tests  # noqa: E402
from test_own_allocator import START, WHO_SERVES, run  # noqa: E402

pytestmark = named_tests.not_built

MIB = 1 << 20
BLOCK_MIB = 4096 * 7 // 8  # an eighth of what is free is left to others
UNMAPPED = START.replace("activate()", "activate(maps=0)")
ASKED = """
print(device.calls("cuMemAlloc_v2"), device.calls("cuMemCreate"), device.calls("cudaMalloc"), device.used() >> 20)
"""
A_TENSOR = """
kept = torch.empty(100 << 20, dtype=torch.uint8, device="cuda")
"""


def test_a_device_without_virtual_memory_is_one_block():
    printed, said = run(UNMAPPED + A_TENSOR + ASKED)
    assert printed == f"1 0 0 {BLOCK_MIB}"
    assert said == "reprise: device 0 has no virtual memory management: one block of 3.50 GiB of it is held from now on"


def test_the_environment_chooses_the_block():
    assert run(START + A_TENSOR + ASKED, REPRISE_CUDA_DEVICE="malloc") == (f"1 0 0 {BLOCK_MIB}", "")


def test_the_environment_forbids_the_block():
    printed, said = run(UNMAPPED + WHO_SERVES, REPRISE_CUDA_DEVICE="vmm")
    assert printed == "native"
    assert said == "reprise: CUDA memory stays with torch's own allocator: device 0 has no virtual memory management"


def test_another_word_is_named_and_ignored():
    printed, said = run(START + A_TENSOR + ASKED, REPRISE_CUDA_DEVICE="cudaMalloc")
    assert printed == "0 50 0 100"
    assert said == 'reprise: environment REPRISE_CUDA_DEVICE: "cudaMalloc" is neither vmm nor malloc; vmm is used'


def test_a_refused_block_leaves_the_device_to_torch():
    printed, said = run(UNMAPPED + 'device.fail("cuMemAlloc_v2")\n' + WHO_SERVES)
    assert printed == "native"
    assert said == f"reprise: CUDA memory stays with torch's own allocator: device 0 refuses one block of {BLOCK_MIB * MIB} bytes"


@pytest.mark.parametrize(("line", "environment", "mib"), [("torch.cuda.set_per_process_memory_fraction(0.25)\n", {}, 1024), ("", {"REPRISE_BUDGET": "25%"}, 1280), ("", {"REPRISE_BUDGET": "100%"}, BLOCK_MIB)])
def test_a_limit_that_is_known_bounds_the_block(line, environment, mib):
    """A fraction to the byte; a budget with a quarter of room for best fit."""
    assert run(START + line + A_TENSOR + ASKED, REPRISE_CUDA_DEVICE="malloc", **environment)[0] == f"1 0 0 {mib}"


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(block.FAMILIES, ("reprise",))))
def test_block(allocator, family, name):
    named_tests.check("block.py", allocator, family, name)
