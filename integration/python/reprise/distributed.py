"""Ranks of one job under a budget: how they agree on one Plan, and the report of all of them.

Ranks speak through torch's own store (the one that init_process_group made), never through the program's process groups: no collective is added.
Every wait is bounded by the store's timeout, which is the timeout given to init_process_group."""

import gc
import json
import sys

import torch
import torch.distributed as dist

from reprise import _core


class Ranks:
    """What reprise's engine asks of the other ranks. Both questions are asked by all ranks in the same order, and wait for all of them.

    RuntimeError names a rank that did not come in time, or says what the store said."""

    def __init__(self, store, rank, world):
        self.rank, self.world = rank, world
        self._store = store
        self._questions = 0
        self._keys = []         # of the question before: everybody has read them when the next is answered

    def any(self, mine):
        """Is `mine` true of any rank? One number to the store and one back."""
        self._questions += 1
        here, answer = f"{self._questions}/here", f"{self._questions}/answer"
        self._store.set(f"at/{self.rank}", str(self._questions))
        total = self._store.add(here, 1 + (bool(mine) << 32))
        if total & 0xFFFFFFFF == self.world:
            self._store.set(answer, str(total >> 32))
        wanting = int(self._read(answer))
        self._forget([here, answer])
        return wanting > 0

    def gather(self, mine):
        """The texts of all ranks, by rank."""
        self._questions += 1
        keys = [f"{self._questions}/{rank}" for rank in range(self.world)]
        self._store.set(f"at/{self.rank}", str(self._questions))
        self._store.set(keys[self.rank], mine)
        texts = [self._read(key).decode() for key in keys]
        self._forget(keys)
        return texts

    def _read(self, key):
        try:
            return self._store.get(key)
        except dist.DistError as error:
            raise RuntimeError(f"reprise: {self._who_is_late()} within {self._store.timeout.total_seconds():g} s, so the ranks cannot agree on a plan. Every rank "
                               f"must run the same number of forward passes; agree=False is for ranks that do not. ({error})") from error

    def _who_is_late(self):
        late = []
        for rank in range(self.world):
            try:
                late += [rank] if not self._store.check([f"at/{rank}"]) or int(self._store.get(f"at/{rank}")) < self._questions else []
            except dist.DistError:
                return "the store did not answer"
        return f"{'rank' if len(late) == 1 else 'ranks'} {', '.join(map(str, late))} of {self.world} did not come" if late else "the store did not answer"

    def _forget(self, keys):
        """Rank 0 clears what everybody has read."""
        if self.rank == 0:
            for key in self._keys:
                self._store.delete_key(key)
        self._keys = keys


_ranks = None       # of the default process group _group
_apart = False      # its ranks run stages of a pipeline: nobody speaks
_group = None
_generation = 0     # auto_checkpoints since the process group was made: each has its own keys in the group's store


def start_anew():
    """auto_checkpoint was called, here and on every other rank: numbering begins again."""
    global _ranks, _apart
    _ranks, _apart = None, False


def _runs_a_stage():
    """Is this process a stage of a pipeline? Its forward waits for the stage before it, so a rank that waits for all others at its forward waits for ever."""
    stage = _loaded("torch.distributed.pipelining.stage", "_PipelineStageBase")
    return bool(stage) and any(stage in type(thing).__mro__ for thing in gc.get_objects())   # no isinstance: it asks the objects, and some answer with code


def current():
    """The ranks of the default process group, or None where the process is alone or its ranks are stages of a pipeline, each with steps of its own."""
    global _ranks, _group, _generation, _apart
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        _ranks = _group = None
    elif _apart and _group is dist.group.WORLD:
        return None
    elif _ranks is None or _group is not dist.group.WORLD:
        _generation = _generation + 1 if _group is dist.group.WORLD else 1
        _group = dist.group.WORLD
        _apart = _runs_a_stage()
        if _apart:
            _ranks = None
            return None
        store = dist.PrefixStore(f"reprise/{_generation}", dist.distributed_c10d._get_default_store())
        _ranks = Ranks(store, dist.get_rank(), dist.get_world_size())
    return _ranks


def _loaded(module, name):
    """A class of torch's, if the program has imported where it lives: else it has no object of it, and need not pay for the import."""
    return getattr(sys.modules.get(module), name, ())


def unwrap(tensor):
    """What autograd saves of a DTensor is this rank's part of it. Returns that plain tensor and a function that makes the DTensor again, or None."""
    DTensor = _loaded("torch.distributed.tensor", "DTensor")
    if not DTensor or type(tensor) is not DTensor or type(tensor._local_tensor) is not torch.Tensor:
        return None                      # a collective's result that is still on its way is kept as it is
    spec = tensor._spec
    return tensor._local_tensor, lambda part: DTensor(part, spec, requires_grad=False)


def local_part(parameter):
    """This rank's part of a parameter that is a DTensor; any other parameter itself."""
    return parameter._local_tensor if isinstance(parameter, _loaded("torch.distributed.tensor", "DTensor")) else parameter


def check(model):
    """FSDP of the first kind keeps its parameters as views of one flat storage that it exchanges under autograd's feet: refused by name, before training."""
    first_kind = _loaded("torch.distributed.fsdp", "FullyShardedDataParallel")
    for name, module in model.named_modules() if model is not None else ():
        if isinstance(module, first_kind):
            raise TypeError(f"argument model: module {name or 'the model itself'!r} is a FullyShardedDataParallel (FSDP1), which is not supported; "
                            "torch.distributed.fsdp.fully_shard (FSDP2) and DistributedDataParallel are")


def reports():
    """The reports of all ranks as dictionaries with their text under "text", the tightest first: the one whose reserved bytes came nearest to its budget.
    Every rank must call it. Without a process group there is one."""
    mine = {"rank": 0, "text": _core.report_text(), **json.loads(_core.report_json())}
    ranks = current()
    if ranks is None:
        return [mine]
    mine["rank"] = ranks.rank
    return sorted((json.loads(text) for text in ranks.gather(json.dumps(mine))), key=fullness, reverse=True)


def fullness(row):
    """Peak reserved bytes as a part of the budget; without one, in bytes."""
    return row["memory"]["peak_reserved_bytes"] / (row["budget_bytes"] or 1)


def merged(rows):
    """What reports() gave, as one text: a line for each rank, the tightest first, then that one's report."""
    lines = []
    for row in rows:
        memory, sharing, ranks = row["memory"], row["sharing"], row.get("ranks", {})
        budget = f"{memory['peak_reserved_bytes'] / row['budget_bytes']:.1%} of {_mebibytes(row['budget_bytes'])}" if row["budget_bytes"] else "no budget"
        plan = ranks.get("plan_hash", "") if ranks.get("one_plan") else "its own"
        lines.append(f"rank {row['rank']}: peak reserved {_mebibytes(memory['peak_reserved_bytes'])} ({budget}); parameters {_mebibytes(sharing['parameter_bytes'])} "
                     f"+ {_mebibytes(sharing['peak_gathered_parameter_bytes'])} gathered; communication buffers "
                     f"{_mebibytes(sharing['peak_communication_buffer_bytes'])}; plan {plan}")
    return "\n".join([*lines, "", f"the tightest, rank {rows[0]['rank']}:", rows[0]["text"].rstrip()])


def _mebibytes(count):
    return f"{count / 2**20:.1f} MiB"
