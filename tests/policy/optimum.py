"""The least added seconds of any Plan within a limit, exactly: as a mixed-integer program (HiGHS), and for tiny steps by trying everything.

A step is what reprise_oracle prints. The problem is the pricer's own (policy/pricer.hpp, M1 … M5): a Value is kept, packed or neither; when backward asks for one that is
not there, a Group unpacks it or makes it again from what is there, runs each operator at most once, holds in passing what it still reads, and retains of what it makes or
unpacks any Values that are asked for later, each to its release. Which ones is free here, where a Choice can only say it by memo levels and cuts: the optimum of
all Plans is never above the best Choice. Each operator makes one Value."""

import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy
import scipy.sparse
from scipy.optimize import Bounds, LinearConstraint, milp


class Step:
    def __init__(self, numbers):
        self.cells, self.base_start, self.base_max = numbers["cells"], numbers["base_start"], numbers["base_max"]
        self.values, self.unpacks = numbers["values"], [tuple(u) for u in numbers["unpacks"]]
        self.rise = [o["rise"] for o in numbers["ops"]]
        self.makers = [v["makers"] for v in self.values]
        self.made = {o: v for v, makers in enumerate(self.makers) for o in makers}
        assert len(self.made) == sum(map(len, self.makers)) == len(self.rise), "an operator makes several Values, or none"
        self.reads = [[u for u in o["reads"]] for o in numbers["ops"]]
        self.cost = [sum(numbers["ops"][o]["seconds"] for o in makers) for makers in self.makers]
        self.inputs = [sorted({u for o in makers for u in self.reads[o] if u != v}) for v, makers in enumerate(self.makers)]
        self.fixed = [bool(v["must_keep"]) for v in self.values]
        self.bytes = [v["bytes"] for v in self.values]
        self.packable = [v["packed_bytes"] > 0 and not v["must_keep"] for v in self.values]

    def ancestors(self, v):
        """v and whatever a Group for it may have to make."""
        found, todo = {v}, [v]
        while todo:
            for u in self.inputs[todo.pop()]:
                if u not in found and not self.fixed[u]:
                    found.add(u)
                    todo.append(u)
        return found

    def kept_until(self, v, last_source):
        value = self.values[v]
        return max(value["gone"], value["last_release"], last_source + 1)

    def readers(self, v, ops):
        return [o for o in ops if v in self.reads[o] and self.made[o] != v]


# Trying everything


@dataclass
class State:
    until: list             # per Value: first cell in which it is not there any more
    change: defaultdict     # per cell: bytes that appear
    source: list            # per Value: last cell in which a Group reads or unpacks it
    extra: dict             # per cell of a Group: highest level inside it
    seconds: float = 0.0


def group_of(step, state, trigger, cell, packed):
    """Values that the Group makes, those that it unpacks, and those there that it reads."""
    makes, unpacks, read, todo = set(), set(), set(), [trigger]
    while todo:
        v = todo.pop()
        if v in makes:
            continue
        if v in packed:
            unpacks.add(v)
            continue
        makes.add(v)
        for u in step.inputs[v]:
            if state.until[u] > cell:
                read.add(u)
            else:
                todo.append(u)
    return makes, unpacks, read


def walk(step, makes, unpacks, retained, trigger):
    """Highest level inside a Group: operators in order, each Value from its first maker (what is unpacked: its first reader) to its last reader or maker."""
    ops = sorted(o for v in makes for o in step.makers[v])
    span = {v: (step.makers[v][0] + 0.5, max(step.readers(v, ops) + step.makers[v])) for v in makes}
    span.update({v: (-1 if v == trigger else min(step.readers(v, ops)), max(step.readers(v, ops), default=-1)) for v in unpacks})
    top = step.bytes[trigger] if trigger in unpacks else 0
    for o in ops:
        held = sum(step.bytes[v] for v, (first, last) in span.items() if first <= o and (v in retained or last >= o))
        after = sum(step.bytes[v] for v, (first, last) in span.items() if first <= o + 0.5 and (v in retained or last > o))
        top = max(top, held + step.rise[o], after)
    return top


def peak_of(step, state, kept, packed):
    change = defaultdict(int, state.change)
    for v, value in enumerate(step.values):
        change[value["birth"]] += step.bytes[v]
        change[step.kept_until(v, state.source[v]) if v in kept else value["gone"]] -= step.bytes[v]
    for v in packed:
        value = step.values[v]
        if value["saved"] or state.source[v] >= 0:
            change[value["packed_from"]] += value["packed_bytes"]
            change[max(value["packed_from"], value["last_release"], state.source[v] + 1)] -= value["packed_bytes"]
    live = peak = 0
    for c in range(step.cells):
        live += change[c]
        peak = max(peak, live + max(step.base_max[c], step.base_start[c] + state.extra.get(c, 0)))
    return peak


def subsets(items):
    return itertools.chain.from_iterable(itertools.combinations(items, n) for n in range(len(items) + 1))


def everything(step):
    """[(peak bytes, added seconds)] of every Plan."""
    free = [v for v in range(len(step.values)) if not step.fixed[v]]
    always, out = {v for v in range(len(step.values)) if step.fixed[v]}, []

    def go(at, state, kept, packed):
        while at < len(step.unpacks) and state.until[step.unpacks[at][1]] > step.unpacks[at][0]:
            at += 1
        if at == len(step.unpacks):
            paid = sum(step.values[v]["pack_seconds"] for v in packed if step.values[v]["saved"] or state.source[v] >= 0)
            out.append((peak_of(step, state, kept, packed), state.seconds + paid))
            return
        cell, trigger = step.unpacks[at]
        makes, unpacks, read = group_of(step, state, trigger, cell, packed)
        seconds = sum(step.cost[v] for v in makes) + sum(step.values[v]["unpack_seconds"] for v in unpacks)
        for more in subsets(sorted(v for v in makes | unpacks if v != trigger and step.values[v]["last_unpack"] > cell)):
            retained = {trigger, *more}
            after = State(list(state.until), defaultdict(int, state.change), list(state.source), dict(state.extra), state.seconds + seconds)
            for u in read | unpacks:
                after.source[u] = cell
            for v in retained:
                end = step.values[v]["last_release"]
                after.until[v] = end
                after.change[cell + 1] += step.bytes[v]
                after.change[end] -= step.bytes[v]
            after.extra[cell] = walk(step, makes, unpacks, retained, trigger)
            go(at + 1, after, kept, packed)
    for chosen in subsets(free):
        kept = always | set(chosen)
        for packed in subsets([v for v in free if v not in kept and step.packable[v]]):
            go(0, State([step.cells + 1 if v in kept else -1 for v in range(len(step.values))], defaultdict(int), [-1] * len(step.values), {}), kept, set(packed))
    return out


# The program


class Program:
    """Rows and columns for HiGHS. An expression is {column: factor}; a constant is a factor of column None."""

    def __init__(self):
        self.costs, self.whole, self.rows, self.low = [], [], [], []

    def column(self, cost=0.0, whole=True):
        self.costs.append(cost)
        self.whole.append(whole)
        return len(self.costs) - 1

    def at_least(self, expression, constant):
        """expression >= constant"""
        self.rows.append({k: f for k, f in expression.items() if k is not None})
        self.low.append(constant - expression.get(None, 0))

    def solve(self):
        entries = [(r, k, f) for r, row in enumerate(self.rows) for k, f in row.items()]
        matrix = scipy.sparse.csr_matrix(([f for *_, f in entries], ([r for r, *_ in entries], [k for _, k, _ in entries])), (len(self.rows), len(self.costs)))
        return milp(numpy.array(self.costs), constraints=LinearConstraint(matrix, self.low, numpy.inf), bounds=Bounds(0, 1), integrality=numpy.array(self.whole, int),
                    options={"mip_rel_gap": 0.0})


def plus(*expressions):
    total = defaultdict(float)
    for factor, expression in expressions:
        for k, f in expression.items():
            total[k] += factor * f
    return total


class Model:
    """like_a_choice: only what memo levels and cuts can say (in part): a Value that is retained where a far trigger makes it is retained where a nearer one does, too."""

    def __init__(self, step, limit, like_a_choice=False):
        self.step, self.limit, self.p = step, limit, Program()
        values = range(len(step.values))
        self.keep = {v: {None: 1} if step.fixed[v] else {self.p.column(): 1} for v in values}
        self.pack = {v: {self.p.column(step.values[v]["pack_seconds"]): 1} for v in values if step.packable[v]}
        for v, pack in self.pack.items():
            self.p.at_least(plus((-1, pack), (-1, self.keep[v])), -1)
        self.need, self.unpack, self.retain = {}, {}, {}
        for e, (cell, trigger) in enumerate(step.unpacks):
            for v in sorted(step.ancestors(trigger)) if not step.fixed[trigger] else []:
                self.need[v, e] = {self.p.column(step.cost[v]): 1}
                if v in self.pack:
                    self.unpack[v, e] = {self.p.column(step.values[v]["unpack_seconds"]): 1}
                if v == trigger:
                    self.retain[v, e] = self.want(v, e)
                elif step.values[v]["last_unpack"] > cell:
                    self.retain[v, e] = {self.p.column(): 1}
        for e in range(len(step.unpacks)):
            self.group(e)
        if like_a_choice:
            self.retain_near_too()
        self.find_sources()
        for c in range(step.cells):
            self.p.at_least(plus((-1, self.live(c))), step.base_max[c] - limit)
        for e in range(len(step.unpacks)):
            self.inside(e)

    def want(self, v, e):
        """Made or unpacked in the Group of event e."""
        return plus((1, self.need[v, e]), (1, self.unpack.get((v, e), {})))

    def retain_near_too(self):
        last = [self.step.makers[t][-1] if self.step.makers[t] else -1 for _, t in self.step.unpacks]
        for (v, far), retained in self.retain.items():
            for (w, near), too in self.retain.items():
                if v == w and near != far and last[near] <= last[far] and v not in (self.step.unpacks[near][1], self.step.unpacks[far][1]):
                    self.p.at_least(plus((1, too), (-1, retained), (-1, self.want(v, near))), -1)

    def there(self, v, e):
        """Kept, or retained by an earlier Group and not released."""
        cell = self.step.unpacks[e][0]
        earlier = [(1, self.retain[v, b]) for b in range(e) if (v, b) in self.retain] if self.step.values[v]["last_release"] > cell else []
        return plus((1, self.keep[v]), *earlier)

    def group(self, e):
        """What has to be made or unpacked: the closure of the trigger over what is not there, and nothing else."""
        cell, trigger = self.step.unpacks[e]
        readers = defaultdict(list)
        for v, at in self.need:
            if at == e:
                for u in self.step.inputs[v]:
                    readers[u].append(v)
        for (v, at), need in self.need.items():
            if at != e:
                continue
            there, want = self.there(v, e), self.want(v, e)
            self.p.at_least(plus((-1, want), (-1, there)), -1)
            if v in self.pack:
                self.p.at_least(plus((1, self.pack[v]), (-1, self.unpack[v, e])), 0)
                self.p.at_least(plus((-1, self.pack[v]), (-1, need)), -1)
            if v == trigger:
                self.p.at_least(plus((1, want), (1, there)), 1)
            else:
                self.p.at_least(plus((-1, want), *((1, self.need[w, e]) for w in readers[v])), 0)
                if (v, e) in self.retain:
                    self.p.at_least(plus((1, want), (-1, self.retain[v, e])), 0)
            for w in readers[v]:
                self.p.at_least(plus((1, want), (1, there), (-1, self.need[w, e])), 0)

    def find_sources(self):
        """hold[v, e]: v is kept and a Group at e or later reads it. hold_packed[v, e]: one unpacks it."""
        self.hold, self.hold_packed = {}, {}
        last = len(self.step.unpacks) - 1
        for v in range(len(self.step.values)):
            for e in range(last, -1, -1):
                reading = [w for w in range(len(self.step.values)) if (w, e) in self.need and v in self.step.inputs[w]]
                later = self.hold.get((v, e + 1))
                if not reading and later is None:
                    continue
                self.hold[v, e] = held = {self.p.column(whole=False): 1}
                for w in reading:
                    self.p.at_least(plus((1, held), (-1, self.need[w, e]), (-1, self.keep[v])), -1)
                if later is not None:
                    self.p.at_least(plus((1, held), (-1, later)), 0)
        for v in self.pack:
            for e in range(last, -1, -1):
                self.hold_packed[v, e] = held = {self.p.column(whole=False): 1}
                for other in (self.unpack.get((v, e)), self.hold_packed.get((v, e + 1))):
                    if other is not None:
                        self.p.at_least(plus((1, held), (-1, other)), 0)

    def live(self, cell):
        """Bytes of Values in a cell, what a Group holds in passing apart."""
        parts = []
        after = next((e for e, (c, _) in enumerate(self.step.unpacks) if c >= cell), None)
        for v, value in enumerate(self.step.values):
            size = self.step.bytes[v]
            if value["birth"] <= cell < value["gone"]:
                parts.append((size, {None: 1}))
            elif cell >= value["gone"] and cell < value["last_release"] and value["birth"] <= cell:
                parts.append((size, self.keep[v]))
            elif cell >= value["gone"] and after is not None and (v, after) in self.hold:
                parts.append((size, self.hold[v, after]))
            if cell < value["last_release"]:
                parts += [(size, self.retain[v, e]) for e, (c, _) in enumerate(self.step.unpacks) if c < cell and (v, e) in self.retain]
        for v, pack in self.pack.items():
            value = self.step.values[v]
            if cell >= value["packed_from"] and cell < value["last_release"]:
                parts.append((value["packed_bytes"], pack))
            elif cell >= value["packed_from"] and after is not None:
                parts.append((value["packed_bytes"], self.hold_packed[v, after]))
        return plus(*parts)

    def inside(self, e):
        """The level inside the Group of event e, at each of its operators."""
        step, (cell, trigger) = self.step, self.step.unpacks[e]
        makes = sorted(v for v, at in self.need if at == e)
        ops = sorted(o for v in makes for o in step.makers[v])
        outside = plus((-1, self.live(cell)))
        if (trigger, e) in self.unpack:
            self.p.at_least(plus((1, outside), (-step.bytes[trigger], self.unpack[trigger, e])), step.base_start[cell] - self.limit)
        for o in ops:
            held = [(-step.bytes[v], here) for v in makes if (here := self.held(v, e, o, ops)) is not None]
            self.p.at_least(plus((1, outside), (-step.rise[o], self.need[step.made[o], e]), *held), step.base_start[cell] - self.limit)

    def held(self, v, e, o, ops):
        """1 where v, made or unpacked in the Group of event e, is still or already held when its operator o begins; None: never."""
        step, rows = self.step, []
        need, unpack, retain = self.need[v, e], self.unpack.get((v, e)), self.retain.get((v, e))
        readers = [(b, self.need[step.made[b], e]) for b in step.readers(v, ops)]
        if step.makers[v][0] < o:
            rows += [(-1, need, reading) for b, reading in readers if b >= o]
            rows += [(0, need)] if step.makers[v][-1] >= o else []
            rows += [(-1, need, retain)] if retain is not None else []
        if unpack is not None:
            rows += [(-2, unpack, before, after) for b, before in readers if b < o for c, after in readers if c > o]
            rows += [(-1, unpack, reading) for b, reading in readers if b == o]
            rows += [(-2, unpack, before, retain) for b, before in readers if b <= o] if retain is not None else []
        if not rows:
            return None
        here = {self.p.column(whole=False): 1}
        for constant, *terms in rows:
            self.p.at_least(plus((1, here), *((-1, t) for t in terms)), constant)
        return here


def optimum(numbers, limit, like_a_choice=False):
    """Least added seconds within the limit, or None where nothing fits."""
    found = Model(Step(numbers), limit, like_a_choice).p.solve()
    assert found.status in (0, 2), found.message
    return found.fun if found.status == 0 else None
