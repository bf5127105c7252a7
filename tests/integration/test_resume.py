"""A run goes on in another process where it was: the same numbers, and no step is measured first."""

import copy
import json
import os
import pathlib
import subprocess
import sys

import pytest

import reprise
from documents import document

SCRIPT = pathlib.Path(__file__).parent / "scripts" / "resumed.py"
BUDGET = 20 << 20       # of 30.6 MiB that the plain step reserves at most


def run(*arguments):
    environment = os.environ | {"REPRISE": "1", "REPRISE_LOG": "0", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, SCRIPT, *(str(a) for a in arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Where a run of four steps inside the budget left its checkpoint and what it had learned; and what it saw."""
    folder = tmp_path_factory.mktemp("resume")
    return folder, run(0, 4, "--budget", BUDGET, "--save", folder)


def test_goes_on_bit_equal_without_a_learning_pass(saved):
    folder, before = saved
    plain, after = run(0, 7), run(4, 7, "--budget", BUDGET, "--load", folder)
    assert plain["memory"]["peak_reserved_bytes"] > BUDGET
    assert before["learned"][0] == 1 and before["losses"] == plain["losses"][:4]
    assert after["losses"] == plain["losses"][4:] and after["parameters"] == plain["parameters"]
    assert after["learned"] == [0, 0, 0]
    assert after["counters"]["replayed"] + after["counters"]["unpacked"] > 0
    assert after["counters"]["unplanned"] == after["counters"]["verified"] == after["counters"]["broken_plans"] == 0
    assert after["memory"]["peak_reserved_bytes"] <= BUDGET


def test_another_program_is_learned_anew(saved):
    folder, _ = saved
    plain, again = run(0, 3, "--other", "--load", folder), run(0, 3, "--other", "--budget", BUDGET, "--load", folder)
    assert again["losses"] == plain["losses"] and again["parameters"] == plain["parameters"]
    assert again["counters"]["broken_plans"] > 0 and again["learned"][-1] == 1
    assert again["memory"]["peak_reserved_bytes"] <= BUDGET


def test_documents_are_checked(saved):
    folder, _ = saved
    text = (folder / "learned.json").read_text()
    assert reprise.Learned.from_json(text).to_json() == text
    for spoilt, wanted in [(text[:-40], "Learned JSON: document: not valid JSON, or cut short, at"),
                           (text.replace('"version":1', '"version":9', 1), "Learned JSON: version: 9, this build reads 1"),
                           (text.replace('"reprise":"Learned"', '"reprise":"Plan"'), 'Learned JSON: reprise: "Plan", expected "Learned"'),
                           (text.replace('"settled":true', '"settled":1', 1), "Learned JSON: checksum:")]:
        with pytest.raises(ValueError) as error:
            reprise.Learned.from_json(spoilt)
        assert str(error.value).startswith(wanted)


def test_fields_are_checked(saved):
    folder, _ = saved
    good = json.loads((folder / "learned.json").read_text())
    good["body"]["steps"].sort(key=lambda s: -len(s["frontier"]))      # not all of them were planned last

    def error_with(change):
        body = copy.deepcopy(good["body"])
        change(body["steps"][0])
        with pytest.raises(ValueError) as error:
            reprise.Learned.from_json(document("Learned", good["version"], body))
        return str(error.value)
    ops = len(good["body"]["steps"][0]["match"])
    assert error_with(lambda s: s["match"].pop()) == f"Learned JSON: body.steps[0].match: {ops - 1} hashes, the Profile has {ops} ops"
    assert error_with(lambda s: s.update(settled=1)) == "Learned JSON: body.steps[0].settled: 1 is not true or false"
    assert error_with(lambda s: s.update(start_live_bytes=-1)) == "Learned JSON: body.steps[0].start_live_bytes: -1 is below 0"
    assert error_with(lambda s: s.update(extra=1)) == 'Learned JSON: body.steps[0]: "extra" is not a field'
    assert error_with(lambda s: s.pop("key")) == "Learned JSON: body.steps[0].key: is missing"
    assert error_with(lambda s: s.update(profile="{}")) == "Profile JSON: reprise: is missing"
    assert error_with(lambda s: s.update(frontier=foreign(s["frontier"]))) == "Plan P3: made for another Trace"


def foreign(frontier):
    """The same Plans, for a step with one Op more."""
    frontier = json.loads(frontier)
    for index, text in enumerate(frontier["body"]["plans"]):
        plan = json.loads(text)
        plan["body"].update(op_count=plan["body"]["op_count"] + 1, added_seconds=0, lower_bound_seconds=0)
        frontier["body"]["plans"][index] = document("Plan", plan["version"], plan["body"])
    return document("Frontier", frontier["version"], frontier["body"])


def test_resume_asks_for_what_it_needs(saved):
    folder, _ = saved
    learned = reprise.Learned.load(folder / "learned.json")
    reprise.undo()
    with pytest.raises(RuntimeError) as error:
        reprise.resume(learned)
    assert str(error.value) == "reprise.resume(): nothing is being trained inside a budget; call auto_checkpoint first"
    with pytest.raises(TypeError) as error:
        reprise.resume(str(folder))
    assert str(error.value) == "argument learned: str is no reprise.Learned; Learned.load(path) reads one"
    with pytest.raises(RuntimeError) as error:
        reprise.learned()
    assert str(error.value) == "reprise.learned(): no step was learned so far; call auto_checkpoint and train one step first"
