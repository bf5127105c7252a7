"""A step that repeats is compared with the last one and its Ops are taken over (repeated.cpp): what is taken over, and what must not be."""

import pytest
import torch

import reprise

WIDTH = 48


@pytest.fixture(autouse=True)
def through():
    yield
    reprise.undo()


def counted(run):
    """(what run() returned, what the engine's counters gained)"""
    before = reprise.counters()
    out = run()
    return out, {k: v - before[k] for k, v in reprise.counters().items()}


class Program:
    """Three products with something between them that differs from step to step, all of it saved, dropped and made again."""

    def __init__(self, between, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.between = between
        self.x = torch.randn(WIDTH, WIDTH, generator=generator)
        self.weights = [(0.2 * torch.randn(WIDTH, WIDTH, generator=generator)).requires_grad_() for _ in range(3)]

    def step(self, variant):
        h = (self.x @ self.weights[0]).tanh()
        h = self.between(h, variant).tanh()
        h = (h @ self.weights[1]).tanh()
        loss = (h @ self.weights[2]).tanh().square().sum()
        loss.backward()
        gradients = [w.grad.clone() for w in self.weights]
        for w in self.weights:
            w.grad = None
        return loss.detach(), gradients


def shifted_start(h, variant):
    return torch.cat([h, h])[variant:variant + WIDTH] * 1.5


# Each: what lies between, and two variants that have the same operators, the same Values and the same shapes.
BETWEEN = {"a number": (lambda h, v: torch.add(h, h, alpha=v), 0.5, 0.75),
           "a dimension": (lambda h, v: h.softmax(v), 0, 1),
           "a list of numbers": (lambda h, v: torch.roll(h, v, (0, 1)), (1, 2), (2, 1)),
           "a flag": (lambda h, v: torch.cumsum(h.flip(0) if v else h.flip(1), 0), True, False),
           "strides": (lambda h, v: (h.t() if v else h) * 1.5, True, False),
           "where a view begins": (shifted_start, 3, 7),
           "the sign bit of a view": (lambda h, v: (torch._neg_view(h) if v else h) * 1.5, True, False),
           "the order of a list": (lambda h, v: torch.stack([h, 2 * h] if v else [2 * h, h]).sum(0) * torch.stack([h, h * 2])[0], True, False)}


def test_a_step_that_repeats_is_taken_over_whole():
    program = Program(lambda h, v: h * v)
    reprise.auto_checkpoint(None, None, policy="full")
    for _ in range(3):
        program.step(0.5)  # learned, measured under its Plan, recorded
    _, gained = counted(lambda: program.step(0.5))
    assert gained["recorded"] > 8 and gained["repeated"] == gained["recorded"] and gained["replayed"] > 0 and gained["broken_plans"] == 0


def equal(found, wanted):
    return torch.equal(found[0], wanted[0]) and all(torch.equal(a, b) for a, b in zip(found[1], wanted[1]))


@pytest.mark.parametrize("between", BETWEEN)
def test_what_differs_is_recorded_anew(between):
    work, first, second = BETWEEN[between]
    expected = {turn: Program(work).step(variant) for turn, variant in enumerate((first, second))}
    program = Program(work)
    reprise.auto_checkpoint(None, None, policy="full")
    for _ in range(3):
        program.step(first)
    recorded = repeated = 0
    for turn in (1, 1, 0, 0, 1, 1, 0, 0):  # two Recordings take turns: each sees every change
        right, gained = counted(lambda: equal(program.step((first, second)[turn]), expected[turn]))
        assert right and gained["replayed"] > 0, f"{between}, {'second' if turn else 'first'} variant"
        recorded, repeated = recorded + gained["recorded"], repeated + gained["repeated"]
    assert 0 < repeated < recorded


def test_the_settings_are_those_of_the_step():
    """What linspace makes depends on the default dtype; a replay under the last step's would make another tensor."""
    program = Program(lambda h, v: h * torch.linspace(0.5, 1.5, WIDTH).float())
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        expected = program.step(None)
        torch.set_default_dtype(default)
        reprise.auto_checkpoint(None, None, policy="full")
        for _ in range(4):
            program.step(None)
        torch.set_default_dtype(torch.float64)
        broken = 0
        for _ in range(2):
            right, gained = counted(lambda: equal(program.step(None), expected))
            assert right and gained["replayed"] > 0
            broken += gained["broken_plans"]
        assert broken > 0  # the same call made more bytes: that is another step
    finally:
        torch.set_default_dtype(default)


def test_two_kinds_of_steps_in_turn_are_right():
    """Their Ops lie in each other's places: nothing fits, and nothing is taken for something else."""
    first, second = Program(lambda h, v: h * v), Program(lambda h, v: (h + v).sigmoid() * h, seed=1)
    second.x = second.x[:WIDTH // 2]
    expected = first.step(0.5), second.step(0.25)
    reprise.auto_checkpoint(None, None, policy="full")
    for _ in range(5):
        for program, number, wanted in ((first, 0.5, expected[0]), (second, 0.25, expected[1])):
            assert equal(program.step(number), wanted)


def test_a_write_is_seen_in_a_step_that_repeats():
    """R7: what a Source's version was is asked for at every step, not taken over."""
    expected = Program(lambda h, v: h * v)
    with torch.no_grad():
        expected.weights[1].mul_(0.5)
    wanted = expected.step(0.5)
    program = Program(lambda h, v: h * v)
    reprise.auto_checkpoint(None, None, policy="full")
    for _ in range(3):
        program.step(0.5)
    with torch.no_grad():
        program.weights[1].mul_(0.5)  # between two steps: legal
    right, gained = counted(lambda: equal(program.step(0.5), wanted))
    assert right and gained["repeated"] == gained["recorded"]
    h = ((program.x @ program.weights[0]).tanh() * 0.5).tanh()
    loss = ((h @ program.weights[1]).tanh() @ program.weights[2]).tanh().square().sum()
    with torch.no_grad():
        program.weights[1].mul_(0.5)  # between forward and backward: as plain torch says
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
