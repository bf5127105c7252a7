"""`python -m reprise simulate`: unmodified scripts on a *simulated* card, each run in processes of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import named_tests  # noqa: E402

from reprise import simulate  # noqa: E402

pytestmark = [named_tests.not_built, pytest.mark.hangs_after(900)]
SCRIPTS = HERE / "scripts"
MIB = 1 << 20


def run(tmp_path, *arguments, script="train.py"):
    """(exit status, what it found, stdout, stderr)"""
    out = tmp_path / "out.json"
    command = [sys.executable, "-W", "ignore", "-m", "reprise", "simulate", "--json", str(out), *arguments[0], str(SCRIPTS / script), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, json.loads(out.read_text(encoding="utf-8")) if out.exists() else None, done.stdout, done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The script where it fits."""
    status, found, said, failed = run(tmp_path_factory.mktemp("plain"), ["--memory", "8GiB"])
    assert status == 0, failed
    assert found["fits_plainly"] and found["steps"] == 2 and found["simulated"] and "fits" in said
    return found


def test_the_peak_is_what_the_script_itself_would_see(plain):
    """Beside the same script on the simulator without any of this, under the same allocator. (cuBLAS's workspace depends on the capability.)"""
    program = f"import simcuda; simcuda.activate(capability=90); import runpy, sys; sys.argv = ['train.py', '--peak']; runpy.run_path({str(SCRIPTS / 'train.py')!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]]), "REPRISE": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == plain["live_peak_bytes"]


def test_what_does_not_fit_gets_a_plan(plain, tmp_path):
    memory = plain["start_bytes"] + (plain["peak_bytes"] - plain["start_bytes"]) * 6 // 10
    status, found, said, failed = run(tmp_path, ["--memory", str(memory), "--reserve", "0"])
    assert status == 0, said + failed
    assert not found["fits_plainly"] and found["fits"]
    assert found["peak_bytes"] == plain["peak_bytes"], "measured without a limit, whatever the card has"
    assert found["plan"]["peak_bytes"] <= memory, "device pages, both allocators'"
    assert found["plan"]["groups"] > 0 and found["plan"]["scheme"] == "auto"
    assert found["plan"]["added_seconds"] > 0


def test_what_no_plan_can_fit_names_a_budget_that_does(plain, tmp_path):
    parameters = 8 * (256 * 1024 * 2 + 1024 + 256 * 3) * 4
    status, found, _, failed = run(tmp_path, ["--memory", str(5 * parameters), "--reserve", "0"])  # parameters, two states, gradients, and one more
    assert status == 1, failed
    assert not found["fits"] and found["plan"] is None
    assert 5 * parameters < found["smallest_budget"] < plain["peak_bytes"]
    status, found, said, failed = run(tmp_path, ["--memory", str(found["smallest_budget"]), "--reserve", "0"])
    assert status == 0, said + failed


def test_functional_code_is_planned_too(tmp_path):
    status, plain, _, failed = run(tmp_path, ["--memory", "2GiB"], script="functional.py")
    assert status == 0, failed
    # 12 products and 12 results of gelu of 8 MiB, less what a step needs in passing
    assert plain["peak_bytes"] > 20 * 8 * MIB
    status, found, said, failed = run(tmp_path, ["--memory", str(plain["peak_bytes"] * 7 // 10), "--reserve", "0"], script="functional.py")
    assert status == 0, said + failed
    assert found["plan"]["peak_bytes"] <= plain["peak_bytes"] * 7 // 10


def test_a_script_that_fails_says_how(tmp_path):
    status, found, _, said = run(tmp_path, [], script="broken.py")
    assert status == 2 and found is None
    assert "the script failed after 0 steps" in said and "ValueError: the script's own mistake" in said


@pytest.mark.parametrize(("arguments", "words"), [(["--memory", "lots"], "lots"), (["--memory", "100MiB", "--reserve", "200MiB"], "must be at least 1 and --reserve 200.0 MiB less"),
                                                  (["--steps", "0"], "--steps 0 must be at least 1")])
def test_wrong_usage_is_named(tmp_path, arguments, words):
    status, found, _, said = run(tmp_path, arguments)
    assert status == 2 and found is None and words in said


def test_the_largest_value_is_found_by_doubling_and_halving():
    for limit in (0, 1, 2, 3, 7, 64, 100):
        asked = []
        assert simulate.largest(lambda value, limit=limit, asked=asked: asked.append(value) or value <= limit) == limit
        assert len(asked) <= 2 * max(limit, 1).bit_length() + 2
    assert simulate.largest(lambda value: value <= 100, start=40) == 100


def test_an_option_of_the_script_is_replaced_where_it_is():
    assert simulate.with_value(["--a", "1", "--batch", "8", "x"], "--batch", 16) == ["--a", "1", "--batch", "16", "x"]
    assert simulate.with_value(["--batch=8"], "--batch", 16) == ["--batch=16"]
    assert simulate.with_value(["x"], "--batch", 16) == ["x", "--batch", "16"]


@pytest.mark.thorough
def test_the_largest_batch(tmp_path):
    """On a card that holds a batch of 8 to the byte, 8 is the largest plainly; a plan holds more. (Up to 4 the optimizer's temporaries are the peak, whatever the batch.)"""
    _, eight, _, failed = run(tmp_path, ["--memory", "8GiB"], "--batch", "8")
    assert eight, failed
    status, found, said, failed = run(tmp_path, ["--memory", str(eight["peak_bytes"]), "--reserve", "0", "--largest=--batch"], "--batch", "8")
    assert status == 0, said + failed
    assert found["largest"]["plain"] == 8 < found["largest"]["planned"], found["largest"]
    assert f"largest --batch that fits: 8 plain, {found['largest']['planned']} with a plan" in said
