"""A world of processes on this machine: one per rank, kept from one scenario to the next, because importing torch costs more than a scenario does.

`World(4).run(function, *arguments)` calls function(*arguments) on every rank inside a fresh gloo process group and returns what each rank returned.
A rank's exception comes back as a Failure. A rank that neither answers nor dies within the timeout is a Hang, which no test may swallow."""

import datetime
import multiprocessing
import os
import socket
import time
import traceback
from dataclasses import dataclass

SECONDS = 240          # of one scenario; generous, because a crowded machine is no hang


class Hang(Exception):
    pass


@dataclass
class Failure:
    """What a rank raised."""

    kind: str                            # name of the exception's class
    text: str
    trace: str
    smallest_budget: int | None = None   # of reprise.Infeasible


@dataclass
class Died:
    """The rank's process ended without an answer."""

    status: int


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_group(rank, world, port, group_seconds, function, arguments):
    """One scenario on one rank, in a process group of its own."""
    import torch
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=group_seconds))
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()


def serve(rank, world, pipe):
    while (request := pipe.recv()) is not None:
        try:
            answer = in_group(rank, world, *request)
        except BaseException as error:  # the test decides what it means
            answer = Failure(type(error).__name__, str(error), traceback.format_exc(), getattr(error, "smallest_budget", None))
        pipe.send(answer)
    os._exit(0)          # nothing is left to do, and unloading torch takes seconds


class World:
    def __init__(self, size, **environment):
        context = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update({name: str(value) for name, value in environment.items()})
        self.pipes, self.processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, size, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)

    def run(self, function, *arguments, seconds=SECONDS, group_seconds=120):
        port = free_port()
        for pipe in self.pipes:
            pipe.send((port, group_seconds, function, arguments))
        deadline, answers = time.monotonic() + seconds, []
        for rank, (pipe, process) in enumerate(zip(self.pipes, self.processes)):
            try:
                if not pipe.poll(max(0.0, deadline - time.monotonic())):
                    raise Hang(f"rank {rank} of {len(self.pipes)} did not answer within {seconds} s")
                answers.append(pipe.recv())
            except EOFError:
                process.join(10)
                answers.append(Died(process.exitcode))
        return answers

    def results(self, function, *arguments, **options):
        """run(), where no rank may fail."""
        answers = self.run(function, *arguments, **options)
        failed = [f"rank {rank}: {answer.trace}" for rank, answer in enumerate(answers) if isinstance(answer, Failure)]
        failed += [f"rank {rank} died with status {answer.status}" for rank, answer in enumerate(answers) if isinstance(answer, Died)]
        assert not failed, "\n".join(failed)
        return answers

    def close(self):
        for pipe, process in zip(self.pipes, self.processes):
            if process.is_alive():
                try:
                    pipe.send(None)
                except BrokenPipeError:
                    pass
        for process in self.processes:
            process.join(20)
            if process.is_alive():
                process.kill()
