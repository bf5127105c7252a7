"""Ranks of one job under a budget: how they agree on one Plan, and the report of all of them.

Ranks speak through torch's own store (the one that init_process_group made), never through the program's process groups: no collective is added.
Every wait is bounded by the store's timeout, which is the timeout given to init_process_group."""

import json
import sys

import torch.distributed as dist

from reprise import _core


class Ranks:
    """What reprise's engine asks of the other ranks. Both questions are asked by all ranks in the same order, and wait for all of them.

    RuntimeError names a rank that did not come in time, or says what the store said."""

    def __init__(self, group, generation):
        self.group = group
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._store = dist.PrefixStore(f"reprise/{generation}", dist.distributed_c10d._get_default_store())
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


_ranks = None
_generation = 0


def start_anew():
    """auto_checkpoint was called, here and on every other rank: numbering begins again."""
    global _ranks
    _ranks = None


def current():
    """The ranks of the default process group, or None where the process is alone."""
    global _ranks, _generation
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        _ranks = None
    elif _ranks is None or _ranks.group is not dist.group.WORLD:
        _generation += 1
        _ranks = Ranks(dist.group.WORLD, _generation)
    return _ranks


def _loaded(module, name):
    """A class of torch's, if the program has imported where it lives: else it has no object of it, and need not pay for the import."""
    return getattr(sys.modules.get(module), name, ())


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
    """The reports of all ranks as dictionaries, the tightest first: the one whose reserved bytes came nearest to its budget. Every rank must call it.
    Each has a "rank"; without a process group there is one."""
    mine = {"rank": 0, **json.loads(_core.report_json())}
    ranks = current()
    if ranks is None:
        return [mine]
    mine["rank"] = ranks.rank
    rows = [json.loads(text) for text in ranks.gather(json.dumps(mine))]
    return sorted(rows, key=fullness, reverse=True)


def fullness(row):
    """Peak reserved bytes as a part of the budget; without one, in bytes."""
    return row["memory"]["peak_reserved_bytes"] / (row["budget_bytes"] or 1)
