"""Real ranks for the tests: processes that live as long as the session, and form a new gloo group for every check."""

import importlib.util
import multiprocessing
import os
import pickle
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch

PATIENCE = 100  # seconds for one check


def _work(pipe, folder):
    """A rank: take (file, name, group, world, arguments) from the pipe, answer with the pickled result."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    import torch.distributed as dist

    torch.set_num_threads(1)
    modules = {}
    while True:
        file, name, group, rank, world, arguments = pickle.loads(pipe.recv_bytes())
        try:
            if file not in modules:
                spec = importlib.util.spec_from_file_location(Path(file).stem + "_on_ranks", file)
                modules[file] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(modules[file])
            store = dist.FileStore(f"{folder}/{group}", world)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")  # of torch's own imports
                result = getattr(modules[file], name)(*arguments)
            dist.barrier()
            dist.destroy_process_group()
            pipe.send_bytes(pickle.dumps((True, result)))
        except BaseException:
            pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
            raise


class Ranks:
    """``ranks(function, *arguments, world=2)`` runs a top-level function of a test file in `world` processes, as ranks
    of a fresh group, with warnings as errors, and returns its results by rank.
    """

    def __init__(self, folder):
        self.folder, self.workers, self.groups = folder, [], 0

    def _start(self, world):
        context = multiprocessing.get_context("forkserver")  # which imports once what all ranks need
        context.set_forkserver_preload(["torch.distributed.fsdp", "torch.distributed.checkpoint", "lognet"])
        while len(self.workers) < world:
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, self.folder), daemon=True)
            process.start()
            there.close()
            self.workers.append((process, here))

    def stop(self):
        for process, pipe in self.workers:
            process.kill()
            process.join()
            pipe.close()
        self.workers = []

    def __call__(self, function, *arguments, world=2):
        self._start(world)
        self.groups += 1
        file = sys.modules[function.__module__].__file__
        for rank, (_, pipe) in enumerate(self.workers[:world]):
            pipe.send_bytes(pickle.dumps((file, function.__name__, self.groups, rank, world, arguments)))
        results, failures = [], []
        for rank, (_, pipe) in enumerate(self.workers[:world]):
            if failures and not pipe.poll(2):
                failures.append(f"rank {rank} still waits")
                continue
            if not pipe.poll(PATIENCE):
                failures.append(f"rank {rank} has not answered in {PATIENCE} s")
                continue
            try:
                done, result = pickle.loads(pipe.recv_bytes())
            except EOFError:
                done, result = False, "the process ended"
            (results if done else failures).append(result if done else f"rank {rank}: {result}")
        if failures:
            self.stop()
            pytest.fail("\n".join(failures), pytrace=False)
        return results


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    pool = Ranks(tmp_path_factory.mktemp("groups"))
    yield pool
    pool.stop()
