"""Download and re-encoding speed of the native fetch engine, against two floors and img2dataset.

    python benchmarks/fetch.py [--images 600] [--rounds 3] [--longest 1600] [--smoke]

A local server sends generated JPEGs of web-like sizes. All contestants store them with the same
short side and quality, alternating, each in its own process with as many threads that decode:

- native: the engine of ``download``, with every check and limit of ``dataprep``.
- floor: the same result by plain library calls. aiohttp reads each body over as many connections;
  threads decode at a fraction, resize, encode, and compute the SHA-256 and the look of the image.
  Nothing is checked, limited or retried.
- decoding: the floor without download and hashes, which no downloader can reach.
- img2dataset: its downloader and resizer with as many connections, with SHA-256, without the look.

Prints images per second and CPU milliseconds per image of this process (the server is another), and
the native engine's ratios to the others. On a shared machine the CPU is the steadier figure.
"""

import argparse
import asyncio
import hashlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import uvloop
from measuring import parse_options
from PIL import Image

from dataprep.addresses import AddressRules, Resolver
from dataprep.fetch import FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.image_hashes import Look, look_of
from dataprep.images import ImageRules, Pixels, encode_jpeg, fitted, resize
from dataprep.img2dataset_engine import run_downloader
from dataprep.miniweb.server import serving
from pipelines.ingest.fetch_engines import NativeEngine

CONNECTIONS = 64
THREADS = 2
IMAGES = ImageRules(short_side=256, jpeg_quality=95, min_side=1, max_pixels=200_000_000)
CONTESTANTS = ("native", "floor", "decoding", "img2dataset")
NO_LIMITS = HostRules(max_concurrent_requests=10_000, max_requests_per_second=1e9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=1600, help="pixels of the longest side")
    parser.add_argument("--who", choices=CONTESTANTS, help="used internally")
    parser.add_argument("--folder", type=Path, help="used internally")
    parser.add_argument("--port", type=int, help="used internally")
    options = parse_options(parser, images=16, rounds=1, longest=300)
    if options.who:
        sys.stdout.write(json.dumps(measure(options.who, options.folder, options.port)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = draw(folder / "images", options.images, options.longest)
        sys.stdout.write(f"{options.images} images, {size / options.images / 1e3:.0f} kB each\n")
        with serving(folder) as port:
            report(options.rounds, folder, port, options.images)


def draw(folder: Path, num_images: int, longest: int) -> int:
    """Write images with detail at every scale, as photographs have; return their total bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    total = 0
    for i in range(num_images):
        width = int(rng.integers(longest // 3, longest))
        height = int(width * rng.uniform(0.6, 1.2))
        pixels = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64, 200):
            coarse = rng.normal(0, 120 / cells**0.5, (cells, cells, 3)).astype(np.float32)
            pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        data = encode_jpeg(np.clip(pixels + 128, 0, 255).astype(np.uint8), 85)
        (folder / f"{i:06d}.jpg").write_bytes(data)
        total += len(data)
    return total


def report(rounds: int, folder: Path, port: int, num_images: int) -> None:
    """Run the contestants in turn and print medians and ratios."""
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in CONTESTANTS}
    for _ in range(rounds):
        for who, mine in times.items():
            mine.append(in_a_process(who, folder, port))
    for who, mine in times.items():
        wall, cpu = (statistics.median(each) / num_images for each in zip(*mine, strict=True))
        sys.stdout.write(f"{who:<12} {1 / wall:7.1f} images/s {cpu * 1e3:7.2f} CPU ms per image\n")
    for who in CONTESTANTS[1:]:
        rate, cpu = (
            statistics.median(
                mine[i] / other[i] for mine, other in zip(times["native"], times[who], strict=True)
            )
            for i in range(2)
        )
        sys.stdout.write(
            f"native against {who}: {1 / rate:.2f}x the images per second, {cpu:.2f}x the CPU\n"
        )


def in_a_process(who: str, folder: Path, port: int) -> tuple[float, float]:
    """Run one contestant in its own process; return its wall and CPU seconds."""
    command = [sys.executable, __file__, "--who", who, "--folder", str(folder), "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def measure(who: str, folder: Path, port: int) -> tuple[float, float]:
    """Fetch every image once; return wall and CPU seconds without start-up."""
    cv2.setNumThreads(1)
    names = sorted(path.name for path in (folder / "images").iterdir())
    urls = [f"http://images.test/ok/{name}" for name in names]
    work = contestant(who, folder, names, port)
    work(urls[:8])
    before, started = cpu_seconds(), time.perf_counter()
    work(urls)
    return time.perf_counter() - started, cpu_seconds() - before


def contestant(
    who: str, folder: Path, names: list[str], port: int
) -> Callable[[list[str]], object]:
    """Return a function that fetches and stores the images at some URLs."""
    rules = FetchRules(
        user_agent="benchmark",
        max_attempts=1,
        max_connections=CONNECTIONS,
        addresses=AddressRules(allow_private=True, connect_to={"*.test": f"127.0.0.1:{port}"}),
    )
    if who == "native":
        return NativeEngine(rules, IMAGES, partial(HostLimiter, NO_LIMITS), num_threads=THREADS)
    if who == "img2dataset":
        return lambda urls: run_downloader(urls, rules, IMAGES)
    threads = ThreadPoolExecutor(THREADS)
    if who == "decoding":
        bodies = [(folder / "images" / name).read_bytes() for name in names]
        return lambda urls: list(threads.map(decode_and_encode, bodies[: len(urls)]))
    return lambda urls: uvloop.run(fetch_plainly(urls, rules.addresses, threads))


async def fetch_plainly(
    urls: list[str], rules: AddressRules, threads: ThreadPoolExecutor
) -> list[tuple[bytes, str, Look]]:
    """Fetch images and store them, without any check."""
    slots, loop = asyncio.Semaphore(CONNECTIONS), asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0, resolver=Resolver(rules))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(url: str) -> tuple[bytes, str, Look]:
            async with slots:
                async with session.get(url) as response:
                    body = await response.read()
                return await loop.run_in_executor(threads, store, body)

        return await asyncio.gather(*map(one, urls))


def store(body: bytes) -> tuple[bytes, str, Look]:
    """Return the stored JPEG, the hash of the original and the look of the image."""
    pixels, jpeg = decode_and_encode(body)
    return jpeg, hashlib.sha256(body).hexdigest(), look_of(pixels)


def decode_and_encode(body: bytes) -> tuple[Pixels, bytes]:
    """Decode at the smallest sufficient scale, resize and encode."""
    data = np.frombuffer(body, np.uint8)
    width, height = Image.open(io.BytesIO(body)).size
    shorter = min(width, height)
    flags = next(
        (flag for scale, flag in SCALES.items() if shorter // scale >= IMAGES.short_side),
        cv2.IMREAD_COLOR,
    )
    bgr = np.asarray(cv2.imdecode(data, flags), np.uint8)
    resized = resize(bgr, fitted(width, height, IMAGES.short_side))
    return resized, bytes(cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


SCALES = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


def cpu_seconds() -> float:
    """Return the CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
