"""Calls a function in a process of its own, under an allocator that nobody has used before.

At budgets of a few hundred KiB the holes that earlier tests left in the heap would decide whether a step fits. A person's script starts with an empty heap too."""

import concurrent.futures
import contextlib
import functools
import gc
import multiprocessing
import os


@contextlib.contextmanager
def environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@functools.cache
def server():
    """A process that has imported torch and the zoo, without reprise; its forks take the allocator in use. (A fork of a process under reprise is uncapped.)"""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zoo"])
    here = os.path.dirname(os.path.abspath(__file__))
    with environment(REPRISE="0", PYTHONPATH=os.pathsep.join([here, os.environ["PYTHONPATH"]])):
        context.Process(target=int).start()
    return context


def install():
    gc.freeze()  # what the server imported need not be walked, and so copied, by every collection here
    os.environ["REPRISE"] = "1"
    from reprise import _autoload

    _autoload.load()


def call(function, *arguments):
    """Returns what the function returns, or raises what it raises; BrokenProcessPool when its process dies."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=server(), initializer=install) as pool:
        return pool.submit(function, *arguments).result()
