"""One cell of the peers' table in a process of its own: a model, a scheme (of peer_schemes.py, or `auto` with a limit of activation bytes), its steps.

The other side (Cell) asks: "check" takes the first four steps, each from a seed of its own, and answers their fingerprints (loss, gradients, buffers after the last)
and peaks; "step" takes a timed one; "count" takes one under a dispatch mode and answers, per operator and shapes, how often it ran and its seconds.
Every process allocates from our core, so bytes are exact and no scheme profits from another heap."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict

CHECKED = 4     # steps; under `auto` the Plan is followed from the third on


class Ended(RuntimeError):
    """The process of a cell is gone."""


class Cell:
    def __init__(self, model, scheme, limit=None, resident=True):
        self.label = f"{model}/{scheme}" + (f" within {limit} bytes" if limit else "")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE") or k == "REPRISE_BUILD"}
        environment.update(REPRISE="1", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", REPRISE_LOG="0")
        request = json.dumps({"model": model, "scheme": scheme, "limit": limit, "resident": resident})
        self.process = subprocess.Popen([sys.executable, __file__, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        self.started = self.read()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):    # torch.compile and some peers print, too
                return json.loads(line)
        raise Ended(f"{self.label}: the process ended with status {self.process.wait()}")

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.read()
        if "raised" in answer:
            raise Ended(f"{self.label}: {answer['raised']}")
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Job:
    """The process's side."""

    def __init__(self, request):
        import torch

        torch.set_num_threads(1)
        import models
        import peer_schemes
        import plans
        import reprise

        self.torch, self.reprise, self.resident, self.limit = torch, reprise, request["resident"], request["limit"]
        torch.manual_seed(0)
        self.bench = plans.bert() if request["model"] == "bert" else models.MODELS[request["model"]]()
        self.model, self.plan, self.steps = self.bench.model, None, 0
        self.parameters, self.buffers = list(self.model.parameters()), list(self.model.buffers())
        if request["scheme"] == "auto":
            reprise.auto_checkpoint(self.model, "100%", policy="none")
        else:
            self.bench.loss = peer_schemes.arm(request["scheme"], request["model"], self.bench) or self.bench.loss
        self.clear()

    def clear(self):
        for parameter in self.parameters:
            if not self.resident:
                parameter.grad = None
            elif parameter.grad is None:
                parameter.grad = self.torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def before(self):
        if self.limit and self.plan is None and self.steps == 2:
            self.plan = self.reprise.plan(self.limit)
            self.reprise.apply(self.plan, self.model)
        self.steps += 1

    def step(self):
        """One step; CPU seconds, activation bytes, and the loss."""
        self.before()
        self.reprise.reset_peaks()
        start, replayed, began = self.reprise.memory_stats()["live_bytes"], self.reprise.counters()["replayed"], time.process_time()
        loss = self.bench.loss(self.model, self.bench.batch)
        loss.backward()
        seconds = time.process_time() - began
        row = {"cpu": seconds, "peak": self.reprise.memory_stats()["peak_live_bytes"] - start, "replayed": self.reprise.counters()["replayed"] - replayed}
        return row, loss.detach()

    def fingerprint(self, tensors):
        digest = hashlib.blake2b(digest_size=12)
        for t in tensors:
            digest.update(b"none" if t is None else t.detach().contiguous().reshape(-1).view(self.torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def check(self):
        seen, rows = [], []
        for index in range(CHECKED):
            self.torch.manual_seed(100 + index)
            row, loss = self.step()
            seen.append(self.fingerprint([loss, *(p.grad for p in self.parameters)]))
            rows.append(row)
            self.clear()
        return {"fingerprints": seen, "buffers": self.fingerprint(self.buffers), "peak": rows[-1]["peak"], "replayed": rows[-1]["replayed"], "plan": self.what_is_planned()}

    def what_is_planned(self):
        """Of the Plan that is followed: how often each operator runs again, and what is packed and unpacked how often."""
        if self.plan is None:
            return None
        body, again, unpacked = self.plan.data["body"], Counter(), Counter()
        for group in body["groups"]:
            again.update(group["ops"])
            unpacked.update(group["unpack"])
        return {"again": again, "packed": [p["value"] for p in body["pack"]], "unpacked": unpacked, "predicted_live_bytes": body["predicted_live_bytes"],
                "added_seconds": body["added_seconds"]}

    def timed(self):
        row, _ = self.step()
        self.clear()
        return row

    def count(self):
        """{operator and shapes: [calls, seconds]} of a whole step. What our engine runs again is below this; its Plan says it."""
        from torch.utils._python_dispatch import TorchDispatchMode
        table, torch = defaultdict(lambda: [0, 0.0]), self.torch

        class Counting(TorchDispatchMode):
            def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
                began = time.thread_time()
                result = operator(*args, **(kwargs or {}))
                took = time.thread_time() - began
                if not operator.is_view:
                    row = table[f"{operator} {[tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]}"]
                    row[0] += 1
                    row[1] += took
                return result

        with Counting():
            self.step()
        self.clear()
        return {"table": table}


def answer(job, command):
    try:
        return {"check": job.check, "step": job.timed, "count": job.count}[command]()
    except Exception as error:  # a peer's failure is a row of the table
        return {"raised": f"{type(error).__name__}: {error}".split("\n")[0][:300]}


def serve(request):
    try:
        job = Job(request)
    except Exception as error:
        print(json.dumps({"refused": f"{type(error).__name__}: {error}".split("\n")[0][:300]}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for command in sys.stdin:
        print(json.dumps(answer(job, command.strip())), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
