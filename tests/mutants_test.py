"""The mutants of tests/support/mutants.py still mutate something, and every rule has one. Whether tests see them is `./dev test --all`."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from mutants import MUTANTS  # noqa: E402


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.rule}: {m.what}")
def test_text_stands_once(mutant):
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before) == 1
    assert mutant.after != mutant.before


def test_every_rule_has_a_mutant():
    assert {m.rule for m in MUTANTS} == {f"R{n}" for n in range(1, 13)}
