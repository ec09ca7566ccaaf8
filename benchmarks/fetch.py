"""Download and re-encoding speed of the native fetch engine, against img2dataset.

    python benchmarks/fetch.py [--images 600] [--rounds 3] [--longest 1600] [--smoke]

A local server sends generated JPEGs of web-like sizes. Both engines store them with the same short
side, quality and number of connections, alternating, each in its own process; the native engine
also computes the perceptual hash. Prints images per second and CPU milliseconds per image, the
native engine's ratios to img2dataset, and its ratio to the floor: scaled decode, resize and encode
of the same bytes in as many threads, without download or records.
"""

import argparse
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

import cv2
import numpy as np
from measuring import parse_options
from PIL import Image

from dataprep.addresses import AddressRules
from dataprep.fetch import FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.images import ImageRules, encode_jpeg, fitted, resize
from dataprep.img2dataset_engine import run_downloader
from dataprep.miniweb.server import serving
from pipelines.ingest.fetch_engines import NativeEngine

CONNECTIONS = 64
THREADS = 2
IMAGES = ImageRules(short_side=256, jpeg_quality=95, min_side=1, max_pixels=200_000_000)
NO_LIMITS = HostRules(max_concurrent_requests=10_000, max_requests_per_second=1e9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=1600, help="pixels of the longest side")
    parser.add_argument("--who", choices=("native", "img2dataset", "floor"), help="used internally")
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
    times: dict[str, list[tuple[float, float]]] = {"native": [], "img2dataset": [], "floor": []}
    for _ in range(rounds):
        for who, mine in times.items():
            mine.append(in_a_process(who, folder, port))
    medians = {}
    for who, mine in times.items():
        wall, cpu = (statistics.median(each) / num_images for each in zip(*mine, strict=True))
        medians[who] = wall, cpu
        sys.stdout.write(f"{who:<12} {1 / wall:7.1f} images/s {cpu * 1e3:7.2f} CPU ms per image\n")
    native, other, floor = (medians[who] for who in times)
    sys.stdout.write(
        f"native against img2dataset: {other[0] / native[0]:.2f}x the images per second, "
        f"{native[1] / other[1]:.2f}x the CPU; "
        f"native against the floor: {native[1] / floor[1]:.2f}x the CPU\n"
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
    bodies = [(folder / "images" / name).read_bytes() for name in names]
    threads = ThreadPoolExecutor(THREADS)
    return lambda urls: list(threads.map(floor, bodies[: len(urls)]))


def floor(body: bytes) -> bytes:
    """Decode at the smallest sufficient scale, resize and encode."""
    data = np.frombuffer(body, np.uint8)
    width, height = Image.open(io.BytesIO(body)).size
    shorter = min(width, height)
    flags = next(
        (flag for scale, flag in SCALES.items() if shorter // scale >= IMAGES.short_side),
        cv2.IMREAD_COLOR,
    )
    bgr = cv2.imdecode(data, flags)
    resized = resize(bgr, fitted(width, height, IMAGES.short_side))
    return bytes(cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


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
