"""What a request costs the host limiter, and how many shards a cluster of 100 nodes needs.

    python benchmarks/host_limiter.py [--workers 20] [--seconds 10] [--shards 1] [--hosts 100000]
                                      [--connections 128] [--latency 0.25] [--smoke]

Workers in several processes acquire and release hosts through real Ray actors. Each has as many
requests open as connections, each of which takes about the latency, so a worker sends about
connections / latency requests a second; 128 and 0.25 s give the 500 of a node with 16 cores. The
hosts are drawn at random from many, so nearly every request is a ticket of its own: the worst case.

Prints the requests per second that were served, the calls of a shard per second, and the CPU time
of the shards and of the workers per request (that of the workers includes their simulation). The
last line compares the need of 100 nodes with one worker each with what the CPU time allows one
shard to serve on a core of its own. Twenty workers and one shard have as many requests in a call as
100 workers and the shards that they get; fewer make calls smaller and a request dearer.
"""

import argparse
import asyncio
import os
import random
import sys
import time

import psutil
import ray
from measuring import parse_options

from dataprep.host_limiter import Answer, HostRules
from pipelines.ingest.cluster_host_limiter import LimiterShards, num_shards, open_limiter
from pipelines.ingest.worker_limiter import WorkerLimiter

NUM_PROCESSES = 2
NODES, REQUESTS_PER_NODE = 100, 500
WARM_UP_S = 1.0
CLOCK_S = 1 / os.sysconf("SC_CLK_TCK")
"Resolution of the CPU time of another process."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.25, help="seconds of a request")
    options = parse_options(parser, workers=2, seconds=0.5, hosts=100, connections=4, latency=0.01)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    shards = open_limiter(HostRules(), options.shards)
    report(options, shards)
    ray.shutdown()


def report(options: argparse.Namespace, shards: LimiterShards) -> None:
    """Let all workers send requests at once; print what that cost."""
    actors = [
        psutil.Process(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())))
        for handle in shards.handles
    ]
    workers = [Workers.remote() for _ in range(NUM_PROCESSES)]
    each = -(-options.workers // NUM_PROCESSES)
    work = [worker.run.remote(shards, options, each) for worker in workers]
    time.sleep(WARM_UP_S)
    started, before = time.perf_counter(), cpu_seconds(actors)
    ray.wait(work)
    elapsed = time.perf_counter() - started
    actor_s = max(cpu_seconds(actors) - before, CLOCK_S)  # a short run may take less than a tick
    found = ray.get(work)
    num_requests = sum(number for number, _, _ in found)
    worker_s, num_calls = sum(cpu for _, cpu, _ in found), sum(calls for _, _, calls in found)
    share = min(elapsed / options.seconds, 1.0)
    actor_us = actor_s / (num_requests * share) * 1e6
    need = NODES * REQUESTS_PER_NODE
    sys.stdout.write(
        f"{each * NUM_PROCESSES} workers, {len(actors)} shards: "
        f"{num_requests / options.seconds:.0f} requests/s, "
        f"{num_calls / options.seconds / len(actors):.0f} calls/s of a shard\n"
        f"CPU per request: {actor_us:.0f} us of the shards, "
        f"{worker_s / num_requests * 1e6:.0f} us of the workers\n"
        f"{NODES} nodes with {REQUESTS_PER_NODE} requests/s each need {need * actor_us / 1e6:.1f}x "
        f"what one shard serves on a core ({1e6 / actor_us:.0f} requests/s); "
        f"they have {num_shards(NODES)} shards\n"
    )


@ray.remote(num_cpus=0)
class Workers:
    """Some workers of one process."""

    def run(
        self, shards: LimiterShards, options: argparse.Namespace, number: int
    ) -> tuple[int, float, int]:
        """Send requests for some seconds; return their number, the CPU time and the calls."""
        before = time.process_time()
        num_requests, num_calls = asyncio.run(send(shards, options, number))
        return num_requests, time.process_time() - before, num_calls


async def send(shards: LimiterShards, options: argparse.Namespace, number: int) -> tuple[int, int]:
    """Send requests by some workers; return the number of requests and of calls."""
    limiters = [WorkerLimiter(shards, f"{os.getpid()}-{i}") for i in range(number)]
    rng, end = random.Random(os.getpid()), time.monotonic() + options.seconds
    num_requests = 0

    async def connection(limiter: WorkerLimiter) -> None:
        nonlocal num_requests
        while time.monotonic() < end:
            host = f"host{rng.randrange(options.hosts)}.example.org"
            await limiter.acquire(host)
            await asyncio.sleep(options.latency * rng.uniform(0.2, 1.8))
            limiter.release(host, Answer(reached=True))
            num_requests += 1

    await asyncio.gather(
        *(connection(limiter) for limiter in limiters for _ in range(options.connections))
    )
    num_calls = sum(client.num_calls for each in limiters for client in each.clients.values())
    return num_requests, num_calls


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU time of processes so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


if __name__ == "__main__":
    main()
