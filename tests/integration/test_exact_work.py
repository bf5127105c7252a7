"""Exact work on a 64-layer chain: replayed operators equal literal numbers, memory within theory + 3 activations (+ 5 for schemes of several passes).

A layer is Linear + ReLU. ReLU's backward needs the layer's own result, so a replay ends with it: no cache costs N(N+1)/2 layers, not N(N-1)/2."""

import importlib.util
import pathlib

import pytest

SPEC = importlib.util.spec_from_file_location("ladder", pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "ladder.py")
ladder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ladder)

WORK = {"none": 0, "full": 2080, "chunks(4)": 61, "chunks(8)": 57, "chunks(16)": 49, "sqrt": 57, "chunks(4, hold_inside=False)": 496, "chunks(8, hold_inside=False)": 232,
        "chunks(16, hold_inside=False)": 100, "sqrt(hold_inside=False)": 232}


def test_the_literals_follow_from_the_closed_forms():
    n = 64
    assert WORK["full"] == n * (n + 1) // 2
    for c in (4, 8, 16):
        size = n // c
        assert WORK[f"chunks({c})"] == n - (c - 1)                                        # all but the held results, once
        assert WORK[f"chunks({c}, hold_inside=False)"] == c * size * (size + 1) // 2 - (c - 1) * size   # a held result saves a whole replay of its chunk
        assert abs(WORK[f"chunks({c}, hold_inside=False)"] - n * n / (2 * c)) <= n / 2
    assert {policy: work for policy, _, work, _ in ladder.schemes(n)} == WORK


@pytest.mark.parametrize("row", ladder.schemes(64), ids=lambda row: row[0])
def test_work_and_memory(row):
    policy, memory, _, one_pass = row
    found_memory, found_work, _ = ladder.measure(policy, 64, 64, 256)
    assert found_work == WORK[policy]
    assert found_memory <= memory + (3 if one_pass else 5) + 64 / (4 * 64 * 256)
