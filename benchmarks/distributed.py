"""FSDP2 with a Plan beside FSDP2 with torch's checkpoint_wrapper around each block, at the same peak: step time on 2 gloo ranks of this machine.

usage: ./dev bench distributed [--pairs N] [--fresh N] [--json FILE]
The peer trains first; its peak of reserved bytes, per rank, is our budget. Then both take one step each in turn. What counts is the CPU time of all ranks
together (user and system), the ratio within a round: median [95 % interval]. Below it, what does not depend on luck: the peaks and the operators run again."""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from paired import interval, line, rounds

MIB = 1 << 20
RANKS = 2
SETTINGS = {"layers": 6, "width": 256, "heads": 8, "length": 256, "batch": 4, "dropout": 0.1}


class World:
    """One process per rank; step() makes all of them take one training step."""

    def __init__(self, recipe, budget=None):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
        environment.update(REPRISE="1", REPRISE_LOG="0", OMP_NUM_THREADS="1", WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        request = json.dumps({"recipe": recipe, "budget": budget})
        self.ranks = [subprocess.Popen([sys.executable, __file__, "--serve", request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                       env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(RANKS)]

    def step(self):
        for rank in self.ranks:
            rank.stdin.write("step\n")
            rank.stdin.flush()
        rows = []
        for number, rank in enumerate(self.ranks):
            text = rank.stdout.readline()
            if not text:
                raise RuntimeError(f"rank {number} ended with status {rank.wait()}")
            rows.append(json.loads(text))
        return {"cpu": sum(row["cpu"] for row in rows), "live": max(row["live"] for row in rows), "reserved": max(row["reserved"] for row in rows),
                "replayed": rows[0]["replayed"], "losses": [row["loss"] for row in rows]}

    def warm_up(self, steps):
        return [self.step() for _ in range(steps)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.stdin.close()
        for rank in self.ranks:
            rank.wait(60)


def serve(request):
    """One rank."""
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import reprise
    from reprise.demo import Settings, build_model

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (RANKS,))
    torch.manual_seed(0)
    settings = Settings(**SETTINGS)
    model = build_model(settings)
    for index, layer in enumerate(model.layers):
        if request["recipe"] == "checkpoint_wrapper":
            layer = model.layers[index] = checkpoint_wrapper(layer)
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(1 + dist.get_rank())
    ids = torch.randint(0, 256, (settings.batch, settings.length + 1))
    if request["recipe"] == "auto":
        reprise.auto_checkpoint(model, request["budget"])
    for _ in sys.stdin:
        reprise.reset_peaks()
        before, cpu = reprise.counters()["replayed"], time.process_time()
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        stats = reprise.memory_stats()
        print(json.dumps({"cpu": time.process_time() - cpu, "live": stats["peak_live_bytes"], "reserved": stats["peak_reserved_bytes"], "loss": loss.item(),
                          "replayed": reprise.counters()["replayed"] - before}), flush=True)
        del loss
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=18)
    parser.add_argument("--fresh", type=int, default=2, help="sets of new processes they are spread over")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(json.loads(args.serve))
    table, last = [], None
    for index in range(args.fresh):
        with World("checkpoint_wrapper") as peer:
            peer_row = peer.warm_up(4)[-1]
            with World("auto", peer_row["reserved"]) as ours:
                row = ours.warm_up(20)[-1]        # learned, planned, settled, refined
                table += rounds([ours, peer], (args.pairs + index) // args.fresh)
                last = last or (row, peer_row)
    ratios = [a / b for a, b in table]
    row, peer_row = last
    print(line(f"FSDP2 on {RANKS} ranks: auto over checkpoint_wrapper per block", ratios, 1.0))
    print(f"    peak per rank, live {row['live'] / MIB:.1f} / {peer_row['live'] / MIB:.1f} MiB, reserved {row['reserved'] / MIB:.1f} / {peer_row['reserved'] / MIB:.1f} MiB; "
          f"run again: {row['replayed']} operators")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"rounds": table, "interval": interval(ratios), "ours": row, "peer": peer_row}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
