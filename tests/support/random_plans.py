"""Plans drawn at random for a recorded step: any Values kept or packed, Groups that retain any of what they make (also what autograd never asks for, as a Source
of later Groups), and Plans that end early, so that the engine is left without a Group. Valid by Plan's P1 … P6, and mostly bad: numbers must be right all the same."""

import random

from documents import document

GONE, UNPACK, RELEASE = 3, 4, 5     # StepKind


class RandomPlan:
    def __init__(self, profile, seed):
        body = profile["body"]
        self.draw, self.body = random.Random(seed), body
        self.values, self.ops = body["values"], body["ops"]
        pairs = body["steps"]
        self.steps = list(zip(pairs[::2], pairs[1::2]))
        self.unpacks = [v for kind, v in self.steps if kind == UNPACK]
        keeps, packs = self.draw.random() ** 2, self.draw.random()
        self.keep = {v for v, value in enumerate(self.values) if value["must_keep"] or self.draw.random() < keeps}
        self.pack = {v for v, value in enumerate(self.values) if v not in self.keep and value["packed"]["form"] != "none" and self.draw.random() < packs}
        self.memo = self.draw.random()
        self.there, self.sources, self.groups = set(self.keep), set(), []

    def group(self, trigger, later):
        """The closure of the trigger over what is not there."""
        ops, read, unpack, seen, todo = set(), set(), [], set(), [trigger]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            if v in self.there:
                read.add(v)
            elif v in self.pack:
                unpack.append(v)
            else:
                ops.update(self.values[v]["makers"])
                todo += [u for o in self.values[v]["makers"] for u in self.ops[o]["reads"]]
        brought = seen - read - set(self.outside(seen))
        retained = {trigger} | {v for v in brought if v in later and self.draw.random() < self.memo} | {v for v in brought if v not in later and self.draw.random() < 0.1 * self.memo
                                                                                                       and not self.values[v]["saved"]}
        self.sources |= read
        self.there |= retained
        self.groups.append({"trigger": self.number(trigger), "ops": sorted(ops), "retain": sorted(map(self.number, retained)), "sources": sorted(map(self.number, read)),
                            "unpack": sorted(map(self.number, unpack))})

    def outside(self, values):
        return [v for v in values if not self.values[v]["makers"] and v not in self.pack]

    def number(self, v):
        return self.values[v]["trace_value"]

    def plan(self):
        waiting = list(self.unpacks)
        for kind, v in self.steps:
            if kind == UNPACK:
                waiting.pop(0)
                if v not in self.there:
                    self.group(v, set(waiting))
            elif kind == RELEASE and v not in self.keep:
                self.there.discard(v)
        kept = sorted(self.number(v) for v in self.keep if self.values[v]["saved"] or v in self.sources)
        packed = sorted(({"value": self.number(v), "form": self.values[v]["packed"]["form"]} for v in self.pack), key=lambda p: p["value"])
        if self.draw.random() < 0.2:
            del self.groups[self.draw.randrange(len(self.groups) + 1):]
        return document("Plan", 2, {"scheme": "auto", "trace_signature": self.body["trace_signature"], "value_count": self.body["trace_values"], "op_count": len(self.ops),
                                    "keep": kept, "pack": packed, "groups": self.groups, "limit_bytes": 0, "predicted_live_bytes": 0, "predicted_reserved_bytes": 0,
                                    "added_seconds": 0.0, "lower_bound_seconds": 0.0})
