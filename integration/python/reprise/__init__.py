"""reprise: train inside a byte budget. `model = reprise.auto_checkpoint(model, "8GiB")`, then train as before, then `reprise.report()`.

Every public name is the same in C++ (integration/cpp/reprise.hpp). Arguments that cannot be honoured raise ValueError or TypeError naming the argument,
the value and the limit, and training goes on as if reprise were not there. All functions may be called from any thread.
"""

import contextlib
import functools
import json
import math

import torch
import torch.utils.checkpoint

from reprise import _core, distributed

_core.set_ranks_finder(distributed.current)
_core.set_unwrapper(distributed.unwrap)

__version__ = "0.1.0"
__all__ = ["Batch", "Batches", "Budget", "Infeasible", "Learned", "Plan", "Profile", "Report", "apply", "auto_checkpoint", "counters", "holders", "keep", "largest_batch", "learned", "memory_stats",
           "plan", "profile", "report", "reset_peaks", "resume", "undo"]

SUPPORTED = ("2.11", "2.12", "2.13", "2.14", "2.15")


class Infeasible(torch.OutOfMemoryError):
    """The budget cannot be met. smallest_budget: bytes of one that the simulator completed, or None."""

    def __init__(self, message, smallest_budget=None):
        super().__init__(message)
        self.smallest_budget = smallest_budget


class Budget(int):
    """Bytes, from 8589934592, "8GiB" or "60%" (of the device)."""

    def __new__(cls, value):
        return super().__new__(cls, _core.parse_budget(_budget_text(value)))


class _Document:
    """An immutable value with one JSON form."""

    def __init__(self, text):
        self._text, self.data = text, json.loads(text)

    def to_json(self):
        return self._text

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._text)


    @classmethod
    def from_json(cls, text):
        """Reads what to_json() wrote. ValueError names the field, its value and the limit."""
        cls._check(text)
        return cls(text)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls.from_json(file.read())


class Profile(_Document):
    """What was measured in the learning Pass."""

    _check = staticmethod(_core.check_profile)


class Plan(_Document):
    """What to keep and what to replay."""

    _check = staticmethod(_core.check_plan)


class Learned(_Document):
    """What was found out about the steps of a program: their Profiles, and all Plans found. save() it beside the model's checkpoint."""

    _check = staticmethod(_core.check_learned)


class Report(_Document):
    """What was measured, decided, predicted, and what really happened. str() is for people, .data and .to_json() for programs."""

    def __init__(self, text, readable):
        super().__init__(text)
        self._readable = readable

    def __str__(self):
        return self._readable


def _budget_text(value):
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"argument budget: {value!r} is a {type(value).__name__}; it takes a number of bytes, a text like '8GiB' or '60%', or None")
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"argument budget: {value!r} is not a whole number of bytes")
        value = int(value)
    text = str(value)
    if not text.strip():
        raise ValueError("argument budget: '' is empty; it takes a number of bytes, a text like '8GiB' or '60%', or None")
    return text


def _parameters(model):
    if model is None:
        return []
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"argument model: {type(model).__name__} is no torch.nn.Module; pass None for functional code")
    named = []
    for name, parameter in model.named_parameters():
        local = distributed.local_part(parameter)
        if type(local.data) is torch.Tensor and local.layout == torch.strided:
            named.append((name, local.untyped_storage()._cdata))
    return named


def auto_checkpoint(model=None, budget=None, *, policy="auto", exclude=(), verify=False, agree=True):
    """Trains `model` inside `budget` from the next step on; returns the model itself, unchanged.

    budget: bytes (int), "8GiB", "60%" of the device, or None to measure only. It caps all reserved bytes of torch's CPU allocator: parameters, gradients,
    optimizer state, activations. policy: "auto", or a classic scheme by name. exclude: shell patterns of module names in which nothing is dropped.
    agree: where torch.distributed runs, the ranks follow one plan, the tightest rank's; False is for ranks that run different numbers of steps.
    Calling it again replaces the budget. The first step is measured (inside the budget too), later ones follow the plan.
    """
    named = _parameters(model)
    if not isinstance(policy, str):
        raise TypeError(f"argument policy: {policy!r} is a {type(policy).__name__}; it takes the name of a scheme")
    patterns = [exclude] if isinstance(exclude, str) else list(exclude or ())
    text = "" if budget is None else _budget_text(budget)
    distributed.check(model)
    distributed.start_anew()
    _core.auto_checkpoint(named, text, policy, patterns, bool(verify), bool(agree))
    return model


def undo(model=None):
    """Back to plain torch: nothing is recorded or capped any more. The allocator stays; it has no cap."""
    _core.undo()
    for module in model.modules() if isinstance(model, torch.nn.Module) else ():
        if getattr(vars(module).get("forward"), "func", None) is torch.utils.checkpoint.checkpoint:
            del module.forward
    return model


def report():
    return Report(_core.report_json(), _core.report_text())


def memory_stats():
    """Bytes of the allocator: live, allocated (rounded), reserved, their peaks since reset_peaks(), cap (0: none); requests served at planned places and
    those of the same steps that were not (REPRISE_PLACEMENT=0: no step is planned)."""
    return _core.memory_stats()


def holders():
    """Who holds the memory now: live allocations by category ("parameter", "activation", "backward", "other"), Region and whether autograd saved them;
    a list of dicts with their bytes and pieces, most bytes first. They add up to the allocator's live bytes."""
    return _core.holders()


def reset_peaks():
    _core.reset_peaks()


def counters():
    """What the engine did since the process began: operators recorded and replayed, saved tensors dropped and kept, …"""
    return json.loads(_core.counters_json())


def profile():
    return Profile(_core.profile_json())


def learned():
    """What was found out about the steps so far, to go on from in another process: `reprise.learned().save(path)`."""
    return Learned(_core.learned_json())


def resume(learned):
    """After auto_checkpoint, in another process: `reprise.resume(reprise.Learned.load(path))`. Steps begin under their plans; none is measured first.
    A program that does something else than what was learned is measured anew, as ever."""
    if not isinstance(learned, Learned):
        raise TypeError(f"argument learned: {type(learned).__name__} is no reprise.Learned; Learned.load(path) reads one")
    _core.resume(learned.to_json())


def plan(budget=None, policy="auto"):
    """The Plan for the step seen last. budget: activation bytes allowed above what is live when the step starts.
    Raises Infeasible where no Plan needs so little; its smallest_budget is the least that can be asked for here."""
    return Plan(_core.plan_json("" if budget is None else _budget_text(budget), policy))


def apply(plan, model=None, executor="engine"):
    """Follows `plan` from the next step on. executor="torch" wraps its Blocks in torch.utils.checkpoint instead and needs nothing else at run time:
    a Block that the plan runs again, even in part, is run again whole. undo(model) takes the wrappers off."""
    if executor == "engine":
        _core.apply(plan.to_json())
        return model
    if executor == "torch":
        return _wrap_blocks(plan, model)
    raise ValueError(f"argument executor: {executor!r} is unknown; there is: 'engine', 'torch'")


def _wrap_blocks(plan, model):
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"argument model: {type(model).__name__} is no torch.nn.Module; executor='torch' wraps modules")
    modules = dict(model.named_modules())
    names = _core.replayed_modules(plan.to_json())
    lost = [name for name in names if not name or name not in modules]
    if lost:
        raise ValueError(f"argument plan: {len(lost)} of its {len(names)} Blocks are no module of this model (the first: {lost[0]!r}); executor='engine' can follow it")
    undo(model)
    for name in set(names):
        module = modules[name]
        module.forward = functools.partial(torch.utils.checkpoint.checkpoint, module.forward, use_reentrant=False)
    return model


@contextlib.contextmanager
def keep():
    """A scope in which nothing that autograd saves on this thread is dropped."""
    _core.enter_keep()
    try:
        yield
    finally:
        _core.leave_keep()


from reprise.batch import Batch, Batches, largest_batch  # noqa: E402  (it uses what is above)
