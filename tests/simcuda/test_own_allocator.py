"""reprise's CUDA allocator beyond torch's (own.py), and the ways in which it is there or not, each in a process of its own. All on the *simulated* device."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import own  # noqa: E402
import named_tests  # noqa: E402

pytestmark = named_tests.not_built

START = """
import simcuda
device = simcuda.activate()
import torch
"""
WHO_SERVES = """
kept = torch.empty(1 << 20, device="cuda")
assert kept.numel() == 1 << 20
print("native" if device.calls("cudaMalloc") else "reprise")
"""


def run(script, **environment):
    """(what it printed, what it said on stderr)"""
    path = os.pathsep.join([str(HERE), *environment.pop("python_path", [os.environ["PYTHONPATH"]])])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": path, "REPRISE": "1", **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(own.FAMILIES, ("reprise",))))
def test_own(allocator, family, name):
    named_tests.check("own.py", allocator, family, name)


def test_the_environment_variable_is_enough():
    assert run(START + WHO_SERVES) == ("reprise", "")


def test_switched_off():
    assert run(START + WHO_SERVES, REPRISE="0") == ("native", "")


def test_installed_after_allocations():
    """What native made before stays native's, and is freed by it."""
    script = START + """
before = torch.empty(1 << 20, device="cuda")
assert device.calls("cudaMalloc") == 1
import reprise
reprise._core.install()
after = torch.empty(1 << 20, device="cuda")
assert device.calls("cudaMalloc") == 1 and device.calls("cuMemCreate") > 0
assert torch.cuda.memory_allocated() == 8 << 20
before.record_stream(torch.cuda.Stream())
del before, after
assert torch.cuda.memory_allocated() == 0
"""
    assert run(script, REPRISE="0") == ("", "")


def test_a_device_that_does_not_answer_stays_native():
    printed, said = run(START + 'device.fail("cuMemGetAllocationGranularity")\n' + WHO_SERVES)
    assert printed == "native"
    assert said == "reprise: CUDA memory stays with torch's own allocator: device 0 does not answer"


def test_without_caching_nothing_is_ours():
    """What compute-sanitizer's users set: each allocation is the device's, and goes back at once."""
    printed, said = run(START + WHO_SERVES + "del kept\nassert device.used() == 0\n", PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    assert printed == "native"
    assert said == "reprise: CUDA memory stays with torch's own allocator: PYTORCH_NO_CUDA_MEMORY_CACHING is set"


def test_a_torch_that_we_have_no_library_for_stays_native(tmp_path):
    """As after a build for a minor version of torch whose interface is not known: everything is there but libreprise_cuda.so."""
    built = pathlib.Path(os.environ["REPRISE_BUILD"]) / "python"
    for source in [*built.glob("reprise/*"), *built.glob("*.dist-info/*")]:
        if source.name == "libreprise_cuda.so" or source.is_dir():
            continue
        target = tmp_path / source.relative_to(built)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    printed, said = run(START + WHO_SERVES, python_path=[str(tmp_path)])
    assert printed == "native"
    assert said.startswith("reprise: CUDA memory stays with torch's own allocator: this build of reprise has none for torch 2."), said
    assert len(said.splitlines()) == 1


BUDGETED = START.replace("activate()", "activate(numeric=True)") + """
import json
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64)) for _ in range(10)]).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
draw, losses = torch.Generator().manual_seed(1), []
for _ in range(4):
    loss = model(torch.randn(16384, 64, generator=draw).cuda()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(json.dumps([losses, torch.cuda.max_memory_reserved()]))
"""


def test_the_environment_alone_caps_a_model_on_the_device():
    """REPRISE_BUDGET knows no model: the budget is the device's that the first Pass runs on."""
    losses, plain = json.loads(run(BUDGETED)[0])
    budget = plain * 6 // 10
    same, peak = json.loads(run(BUDGETED, REPRISE_BUDGET=str(budget))[0])
    assert same == losses
    assert peak <= budget < plain


def test_a_budget_by_the_environment_that_is_exceeded_already_raises():
    script = BUDGETED.replace("draw, losses", "ballast = torch.empty(16 << 20, dtype=torch.uint8, device='cuda')\ndraw, losses", 1)
    script = script.replace("import json\n", "import json, reprise\n", 1).replace("losses.append(loss.item())", "", 1)
    script = script.replace("    loss = model", "    try:\n        loss = model", 1).replace(".square().mean()\n    loss.backward()", """.square().mean()
    except torch.OutOfMemoryError as error:
        print(type(error).__name__, error)
        raise SystemExit(0)
    loss.backward()""", 1)
    printed, _ = run(script, REPRISE_BUDGET="8MiB")
    assert printed.startswith("Infeasible reprise: the budget of 8388608 bytes (8.0 MiB) is less than what cuda:0 holds already: "), printed


def test_percent_of_the_environment_are_the_device_s():
    script = START + """
import reprise
x = torch.ones(4, device="cuda", requires_grad=True)
(x * x).sum().backward()
print(reprise.memory_stats()["cap_bytes"])
"""
    assert run(script, REPRISE_BUDGET="25%")[0] == str(1024 << 20)


def test_a_budget_needs_our_allocator():
    script = START + """
device.fail("cuMemGetAllocationGranularity")
import reprise
model = torch.nn.Linear(4, 4).cuda()
try:
    reprise.auto_checkpoint(model, "1GiB")
except ValueError as error:
    print(error)
model(torch.ones(2, 4, device="cuda")).sum().backward()
"""
    assert run(script)[0] == "argument model: it is on cuda:0, whose memory is torch's own allocator's; a budget needs it to be served by reprise"
