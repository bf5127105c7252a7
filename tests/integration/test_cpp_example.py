"""LibTorch programs: trained inside a budget bit-equal to plain, by explicit call and through the preload shim, with no Python in the process."""

import json
import os
import pathlib
import subprocess

import pytest

pytestmark = pytest.mark.hangs_after(900)   # whole programs, several one after the other
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
TRAIN, UNMODIFIED = BUILD / "examples" / "reprise_example_train", BUILD / "examples" / "reprise_example_unmodified"
SHIM, ADAPTER = BUILD / "python" / "reprise" / "libreprise.so", "libreprise_torch.so"
STEPS = 4


def run(program, *arguments, loaded, **variables):
    """Runs a program; the loader writes every object that it ever maps into the process, dlopen's too, to `loaded`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REPRISE", "PYTHON", "LD_"))}
    environment.update(OMP_NUM_THREADS="1", LD_DEBUG="files", LD_DEBUG_OUTPUT=str(loaded), **{k: str(v) for k, v in variables.items()})
    done = subprocess.run([program, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(loaded):
    """Names of all objects that were mapped, by the loader's own word."""
    text = "".join(path.read_text(encoding="utf-8") for path in loaded.parent.glob(loaded.name + ".*"))
    return {pathlib.Path(line.split("file=")[1].split()[0]).name for line in text.splitlines() if "file=" in line and "generating link map" in line}


def python_in(names):
    return sorted(name for name in names if "python" in name or name.startswith("_core."))


def test_the_explicit_call(tmp_path):
    """The program itself compares losses and parameters with torch::equal, and reserved bytes with the budget; its status says whether both hold."""
    said = run(TRAIN, STEPS, loaded=tmp_path / "loaded")
    assert f"{STEPS} steps" in said
    assert "equal to plain: yes" in said
    assert said.rstrip().endswith("within")
    names = objects(tmp_path / "loaded")
    assert ADAPTER in names
    assert python_in(names) == []


def test_an_unmodified_program_through_the_shim(tmp_path):
    run(UNMODIFIED, STEPS, tmp_path / "plain.bin", loaded=tmp_path / "loaded-plain")
    run(UNMODIFIED, STEPS, tmp_path / "counted.bin", loaded=tmp_path / "loaded-counted", LD_PRELOAD=SHIM, REPRISE=1, REPRISE_REPORT=tmp_path / "counted.json")
    memory = json.loads((tmp_path / "counted.json").read_text(encoding="utf-8"))["memory"]
    budget = int(0.72 * memory["peak_reserved_bytes"])
    run(UNMODIFIED, STEPS, tmp_path / "budgeted.bin", loaded=tmp_path / "loaded-budgeted", LD_PRELOAD=SHIM, REPRISE_BUDGET=budget, REPRISE_REPORT=tmp_path / "budgeted.json")
    plain = (tmp_path / "plain.bin").read_bytes()
    assert len(plain) > 4 * 3_000_000   # four losses and more than three million parameters
    assert (tmp_path / "counted.bin").read_bytes() == plain
    assert (tmp_path / "budgeted.bin").read_bytes() == plain
    report = json.loads((tmp_path / "budgeted.json").read_text(encoding="utf-8"))
    assert report["budget_bytes"] == budget
    assert report["memory"]["peak_reserved_bytes"] <= budget
    assert report["counters"]["replayed"] > 0
    assert ADAPTER not in objects(tmp_path / "loaded-plain")
    assert ADAPTER in objects(tmp_path / "loaded-budgeted")
    assert python_in(objects(tmp_path / "loaded-budgeted")) == []


@pytest.mark.parametrize("variables", [{"REPRISE": "0", "REPRISE_BUDGET": "1MiB"}, {}], ids=["switched off", "not asked for"])
def test_the_shim_alone_does_nothing(tmp_path, variables):
    run(UNMODIFIED, 1, tmp_path / "result.bin", loaded=tmp_path / "loaded", LD_PRELOAD=SHIM, REPRISE_REPORT=tmp_path / "report.json", **variables)
    assert SHIM.name in objects(tmp_path / "loaded")
    assert ADAPTER not in objects(tmp_path / "loaded")
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("file", [TRAIN, UNMODIFIED, SHIM, SHIM.with_name(ADAPTER)], ids=lambda path: path.name)
def test_nothing_is_linked_to_python(file):
    linked = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked
    assert "python" not in "".join(line.split("=>")[0] for line in linked.splitlines())
