"""Images per second of the feed, against loaders that do the same work on the same cores.

    python benchmarks/feed.py [--images 8192] [--threads 1,2] [--rounds 3] [--smoke]

The peers are a torch DataLoader, LitData (``pip install -e .[bench]``; it is left out where it is
not installed) and Ray Data. Each of them decodes each JPEG, cuts a stored view of it at 224 pixels,
jitters its colors, and draws masks and stochastic depth with the same functions, on as many cores
as ``--threads`` says, one number after another. The DataLoader and Ray Data read the feed's Parquet
files, LitData its own format.

For each number of cores the contestants alternate. Prints images per second and the ratio to the
fastest peer; the seconds to the first batch of the first epoch; the peak memory of all processes
in the second one, as sampling slows an epoch down (neither is timed); the row groups that the feed
reads for each one of an epoch; and how the feed scales from the first number of cores to the
others.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
from codes import images
from feed_contestants import (
    CONFIG,
    HAS_LITDATA,
    NUM_SUBSTREAMS,
    WINDOW,
    Contestant,
    Epoch,
    FeedEpoch,
    Measured,
    Work,
    litdata_epoch,
    loader_epoch,
    ray_epoch,
    write_litdata,
)
from measuring import parse_options
from tokens import committed

from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.tokens.image_tokens import Params
from tokenizer.text import train

PARAMS = Params()
"The defaults of the stage ``image_tokens``."
_UNTIMED: Final = 2
"Epochs before those that are timed."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--threads", default="1,2", help="numbers of cores, one after another")
    parser.add_argument("--rounds", type=int, default=3)
    options = parse_options(parser, images=512, rounds=1, threads="2")
    contestants: dict[str, Callable[[Work], Epoch]] = {"feed": FeedEpoch}
    contestants |= {"DataLoader": loader_epoch}
    contestants |= {"LitData": litdata_epoch} if HAS_LITDATA else {}
    contestants |= {"Ray Data": ray_epoch}
    if not HAS_LITDATA:
        sys.stdout.write("LitData is not installed\n")
    rates = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset = written(Path(folder), options.images)
        for num_threads in map(int, options.threads.split(",")):
            if num_threads > len(os.sched_getaffinity(0)):
                sys.stdout.write(f"{num_threads} cores: this machine has fewer\n")
                continue
            work = Work(dataset, Path(folder), options.images, num_threads)
            found = alternating(contestants, work, options.rounds)
            rates.append((num_threads, report(found, work)))
    for num_threads, rate in rates[1:]:
        sys.stdout.write(
            f"feed, {num_threads} cores: {rate / rates[0][1]:.2f}x of {rates[0][0]} cores\n"
        )


def written(folder: Path, number: int) -> Dataset:
    """Commit rows of ``image_tokens``, and write the same in LitData's format."""
    few = images(min(number, 256), CONFIG.num_patches, PARAMS.num_views)
    rows = pa.concat_tables([few] * (number // few.num_rows)).combine_chunks()
    # Each substream shuffles a window of row groups.
    group_rows = min(PARAMS.row_group_rows, number // (NUM_SUBSTREAMS * WINDOW))
    (folder / "spm.model").write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    if HAS_LITDATA:
        write_litdata(rows, folder / "litdata", group_rows)
    return committed(Store(str(folder)).sub("images"), rows, "train", group_rows).table("train")


def alternating(
    contestants: dict[str, Callable[[Work], Epoch]], work: Work, rounds: int
) -> dict[str, list[Measured]]:
    """Return the epochs of each contestant; the first two are not timed."""
    running = {name: Contestant(open_epoch, work) for name, open_epoch in contestants.items()}
    found: dict[str, list[Measured]] = {name: [] for name in running}
    for number in range(_UNTIMED + rounds):
        for name, contestant in running.items():
            found[name].append(contestant.measure(memory=number == 1))
    for contestant in running.values():
        contestant.close()
    return found


def report(found: dict[str, list[Measured]], work: Work) -> float:
    """Print the epochs of one number of cores and return the feed's images per second."""
    rates = {
        name: work.num_images / statistics.median(epoch.seconds for epoch in epochs[_UNTIMED:])
        for name, epochs in found.items()
    }
    fastest = max((name for name in rates if name != "feed"), key=rates.__getitem__)
    sys.stdout.write(
        f"{work.num_threads} cores: feed {rates['feed'] / rates[fastest]:.2f}x of {fastest}\n"
    )
    for name, epochs in found.items():
        later = statistics.median(epoch.first for epoch in epochs[_UNTIMED:])
        sys.stdout.write(
            f"  {name}: {rates[name]:.0f} images/s, first batch after {epochs[0].first:.2f} s "
            f"(later epochs {later:.2f} s), "
            f"peak memory {epochs[1].memory / 1e6:.0f} MB\n"
        )
    read = found["feed"][-1].read
    sys.stdout.write(f"  feed: {read:.2f}x of the epoch's row groups read\n")
    return rates["feed"]


if __name__ == "__main__":
    main()
