"""Runs a case plainly or under reprise and says, bit for bit, where two runs differ.

A case makes a Program: a module and `step(index)`, which does forward and backward and returns whatever the user would look at. The runner adds
what a training loop adds: an SGD step and zeroed gradients. Everything observed is kept outside torch's memory, so that observing costs no budget."""

import contextlib
import functools
import gc
import hashlib
import math
from dataclasses import dataclass, field
from typing import Callable

import numpy
import torch


@dataclass
class Program:
    model: torch.nn.Module
    step: Callable                       # step(index) -> list of tensors, texts or numbers; runs every backward itself


@dataclass(eq=False)
class Case:
    name: str
    make: Callable                       # make() -> Program; seeded by the runner
    replays: bool = True                 # "full" must replay something here
    unseen: bool = False                 # writes nobody sees: equal, or an error of ours that names the tensor; never wrong numbers
    steps: int = 3
    group: str = ""                      # module that defines it

    def __repr__(self):
        return self.name


@dataclass
class Outcome:
    seen: dict = field(default_factory=dict)      # name -> fingerprint
    error: str | None = None
    counters: dict = field(default_factory=dict)  # what the engine did during the run
    base_bytes: int = 0                           # live before the model was made
    start_bytes: int = 0                          # live at the start of the last step, above base
    activation_bytes: int = 0                     # what the last step added at its peak
    peak_reserved_bytes: int = 0


REGISTRY: dict[str, Case] = {}


def case(**options):
    """Registers a maker under its function name."""
    def register(make):
        assert make.__name__ not in REGISTRY, make.__name__
        REGISTRY[make.__name__] = Case(make.__name__, make, group=make.__module__, **options)
        return make
    return register


def simple(model, inputs, loss_of=None):
    """The usual program: one forward, one backward."""
    loss_of = loss_of or (lambda m, *x: m(*x).float().square().mean())

    def step(index):
        loss = loss_of(model, *inputs)
        loss.backward()
        return [loss]
    return Program(model, step)


def parts_of(value):
    """Plain strided tensors that together are the value."""
    value = value.detach()
    if value.is_nested:
        return [p for t in value.unbind() for p in parts_of(t)]
    if value.is_mkldnn:
        return [value.to_dense()]
    if value.layout == torch.sparse_coo:
        value = value.coalesce()
        return [value.indices(), value.values()]
    if value.layout == torch.sparse_csr:
        return [value.crow_indices(), value.col_indices(), value.values()]
    return [value.int_repr()] if value.is_quantized else [value]


def fingerprint(value):
    """Type, shape and bits of what was observed; small tensors also keep their numbers for the message."""
    if not isinstance(value, torch.Tensor):
        return value
    out = []
    for part in parts_of(value):
        flat = part.resolve_conj().resolve_neg().contiguous().reshape(-1)
        raw = flat.view(torch.uint8).numpy() if flat.numel() else numpy.zeros(0, numpy.uint8)
        numbers = flat.to(torch.complex128 if flat.is_complex() else torch.float64).numpy().copy() if flat.numel() <= 1 << 16 else None
        out.append((str(part.dtype), tuple(part.shape), hashlib.blake2b(raw.tobytes(), digest_size=16).hexdigest(), numbers))
    return out


def describe(a, b):
    """How two fingerprints differ, or None."""
    if not (isinstance(a, list) and isinstance(b, list)):
        return None if type(a) is type(b) and a == b else f"{a!r} against {b!r}"
    if [x[:3] for x in a] == [x[:3] for x in b]:
        return None
    for x, y in zip(a, b):
        if x[:2] != y[:2]:
            return f"{x[:2]} against {y[:2]}"
        if x[2] != y[2] and x[3] is not None and y[3] is not None:
            return f"{int((x[3] != y[3]).sum())} of {x[3].size} numbers, at most {numpy.nanmax(abs(x[3] - y[3])):.3g} apart"
    return "other bits"


def differences(plain, other):
    """What is not equal, one line each. A gradient that one run has and the other has not is a difference."""
    if plain.error is not None or other.error is not None:
        return [] if plain.error == other.error else [f"error: {plain.error!r} against {other.error!r}"]
    lines = [f"only in one run: {name}" for name in plain.seen.keys() ^ other.seen.keys()]
    for name in plain.seen.keys() & other.seen.keys():
        said = describe(plain.seen[name], other.seen[name])
        lines += [f"{name}: {said}"] if said else []
    return sorted(lines)


def observe(outcome, program, index, returned):
    for i, value in enumerate(returned):
        outcome.seen[f"step {index} result {i}"] = fingerprint(value)
    for name, parameter in program.model.named_parameters():
        outcome.seen[f"step {index} gradient {name}"] = fingerprint(parameter.grad)


def observe_end(outcome, program):
    for name, value in [*program.model.named_parameters(), *program.model.named_buffers()]:
        outcome.seen[f"end {name}"] = fingerprint(value)
    outcome.seen["end RNG state"] = fingerprint(torch.get_rng_state())


def descend(model, rate=0.01):
    """Plain SGD; gradients stay resident afterwards, so that activations are all that a step adds."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is None:
                continue
            if parameter.grad.layout == torch.strided:
                parameter.sub_(parameter.grad, alpha=rate)
                parameter.grad.zero_()
            else:
                parameter.sub_(parameter.grad.to_dense(), alpha=rate)
                parameter.grad = None


def execute(case, outcome, program, before_step=None):
    import reprise

    for index in range(case.steps):
        if before_step:
            before_step(index)
        reprise.reset_peaks()
        outcome.start_bytes = reprise.memory_stats()["live_bytes"] - outcome.base_bytes
        returned = program.step(index)
        stats = reprise.memory_stats()
        outcome.activation_bytes = stats["peak_live_bytes"] - outcome.base_bytes - outcome.start_bytes
        outcome.peak_reserved_bytes = max(outcome.peak_reserved_bytes, stats["peak_reserved_bytes"])
        observe(outcome, program, index, returned)
        del returned
        descend(program.model)
    observe_end(outcome, program)


@contextlib.contextmanager
def same_settings():
    """Whatever a program changes in torch is as before afterwards."""
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
              torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled)
    try:
        yield
    finally:
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])
        torch.set_float32_matmul_precision(before[2])
        torch.use_deterministic_algorithms(before[3])
        torch.backends.mkldnn.enabled = before[4]
        torch.set_flush_denormal(False)


def run_case(case, policy=None, budget="100%", before_step=None):
    """One run. Without a policy it is plain. A budget may be a function of the bytes live now. before_step(index) is called before each.
    Errors become part of the outcome, but not Infeasible, which is raised."""
    import reprise

    gc.collect()
    outcome = Outcome(base_bytes=reprise.memory_stats()["live_bytes"])
    before = reprise.counters()
    torch.manual_seed(1234)
    with same_settings():
        program = case.make()
        try:
            if policy is not None:
                reprise.auto_checkpoint(program.model, budget(outcome.base_bytes) if callable(budget) else budget, policy=policy)
            execute(case, outcome, program, before_step)
        except reprise.Infeasible:
            raise
        except Exception as error:  # the error is what is compared
            outcome.error = f"{type(error).__name__}: {error}"
        finally:
            reprise.undo()
    after = reprise.counters()
    outcome.counters = {k: after[k] - before.get(k, 0) for k in after if isinstance(after[k], int)}
    return outcome


@functools.lru_cache(maxsize=4)
def plain_outcome(case):
    return run_case(case)


def budget_at(plain, fraction, pages=0):
    """The budget that leaves `fraction` of plain's activation bytes, and 2 % for the pieces' rounding. pages: bytes besides."""
    return functools.partial(_budget, plain.start_bytes + fraction * plain.activation_bytes + pages)


def _budget(above_base_bytes, base_bytes):
    return math.ceil(1.02 * (base_bytes + above_base_bytes))
