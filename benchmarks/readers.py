"""Reading speed of source lists and archives, against programs that stream the same bytes.

    python benchmarks/readers.py [--lines 1000000] [--archive-mb 1000] [--smoke]

Lists: a generated CC12M and CC3M, each cut into slices and read to index tables on one core;
the peer is ``pyarrow.csv.read_csv`` on one thread, which img2dataset reads lists with.
Archives: a generated tar of one tar per synset. The list of synsets against ``tar -tf``; every
image of every synset against ``tar -xOf FILE | wc -c`` and ``cat FILE | wc -c``. A quarter of it
gzipped: building its index, and then reading every image, against ``gzip -dc FILE | wc -c``.
Contestants alternate with the file in the page cache; prints ratios of medians. Each reader also
runs once in its own process; its peak memory is printed beside that of a process that only imports.
"""

import argparse
import io
import multiprocessing
import multiprocessing.connection
import subprocess
import sys
import tarfile
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.csv
from measuring import alternating, parse_options

from dataprep.sources.conceptual import read_cc3m, read_cc12m
from dataprep.sources.entries import index_tables
from dataprep.sources.imagenet21k import Segment, index_gzipped, read_synset, synsets
from dataprep.sources.lines import line_ranges

ROUNDS = 5
IMAGE_BYTES = (20_000, 200_000)
IMAGES_PER_SYNSET = 500
"About as many as in ImageNet-21K."
LINES_PER_SLICE = 50_000
CAPTION = (
    "a red circle left of two blue squares , on the old wooden table in front of the house "
    "near Paris &amp; Rome with <PERSON> 's dog"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--archive-mb", type=int, default=1000)
    options = parse_options(parser, lines=2000, archive_mb=4)
    rounds = 1 if options.smoke else ROUNDS
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        lists(Path(folder), options.lines, rounds)
        archives(Path(folder), options.archive_mb * 1_000_000, rounds)
        gzipped_archive(Path(folder), options.archive_mb * 250_000, rounds)


def lists(folder: Path, number: int, rounds: int) -> None:
    """Read a list of each format to index tables, as the stage ``index`` does."""
    rng = np.random.default_rng(0)
    words = CAPTION.split()
    captions = [" ".join(rng.choice(words, rng.integers(5, 25))) for _ in range(997)]
    for form in ("cc12m", "cc3m"):
        path = folder / f"{form}.tsv"
        with path.open("w") as file:
            for i in range(number):
                caption = captions[i % len(captions)]
                url = f"https://img{i % 977}.example.org/photos/{i:09d}/image_{i % 13}.jpg"
                file.write(f"{url}\t{caption}\n" if form == "cc12m" else f"{caption}\t{url}\n")
        peer, ours = alternating(rounds, partial(read_csv, path), partial(index, form, path))
        sys.stdout.write(
            f"{form}: {number / ours * 60 / 1e6:.2f} M lines per minute on one core, "
            f"{path.stat().st_size / ours / 1e6:.0f} MB/s, "
            f"{peer / ours:.3f}x of the speed of pyarrow.csv; {memory_of(index, form, path)}\n"
        )


def index(form: str, path: Path) -> int:
    """Cut a list into slices and read each; return the number of its rows."""
    read = read_cc3m if form == "cc3m" else read_cc12m
    return sum(
        index_tables(read(path, line_range), form, path.name)[0].num_rows
        for line_range in line_ranges(path, LINES_PER_SLICE)
    )


def read_csv(path: Path) -> int:
    """Read a list with pyarrow on one thread; return the number of its rows."""
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=["first", "second"]),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
    )
    return int(table.num_rows)


def archives(folder: Path, num_bytes: int, rounds: int) -> None:
    """List and read a tar of tars."""
    path = folder / "whole.tar"
    number = make_archive(path, num_bytes)
    size = path.stat().st_size
    list_tar, list_ours = alternating(
        rounds,
        partial(shell, f"tar -tf {path}"),
        lambda: list(synsets(path)),
    )
    sys.stdout.write(
        f"archive of {size / 1e9:.2f} GB, {number} images: tar -tf {1000 * list_tar:.1f} ms, "
        f"list of synsets {1000 * list_ours:.1f} ms, {list_tar / list_ours:.2f}x of tar's speed\n"
    )
    out, cat, ours = alternating(
        rounds,
        partial(shell, f"tar -xOf {path} | wc -c"),
        partial(shell, f"cat {path} | wc -c"),
        partial(read_all, path, {}),
    )
    sys.stdout.write(
        f"every image: {size / ours / 1e9:.2f} GB/s, {number / ours:.0f} images/s; "
        f"{out / ours:.2f}x of the speed of tar -xOf | wc -c, {cat / ours:.2f}x of cat | wc -c; "
        f"{memory_of(read_all, path, {})}\n"
    )


def gzipped_archive(folder: Path, num_bytes: int, rounds: int) -> None:
    """Index and read a gzipped tar of tars."""
    path = folder / "small.tar"
    make_archive(path, num_bytes)
    size, gzipped = path.stat().st_size, folder / "small.tar.gz"
    shell(f"gzip -1 -k {path}")
    segments: list[Segment] = []
    gzip, listing = alternating(
        rounds,
        partial(shell, f"gzip -dc {gzipped} | wc -c"),
        lambda: (segments.clear(), index_gzipped(gzipped, segments.append)),
    )
    memory = memory_of(index_gzipped, gzipped, segments.append)
    indexes = {segment.start: segment.index for segment in segments}
    (reading,) = alternating(rounds, partial(read_all, gzipped, indexes))
    index_bytes = sum(map(len, indexes.values()))
    sys.stdout.write(
        f"gzipped, {size / 1e9:.2f} GB: index and list {size / listing / 1e6:.0f} MB/s, "
        f"{gzip / listing:.2f}x of the speed of gzip -dc | wc -c, {memory}; every image "
        f"{size / reading / 1e6:.0f} MB/s, {gzip / reading:.2f}x; index {index_bytes / 1e6:.1f} MB "
        f"in {len(indexes)} segments; {memory_of(read_all, gzipped, indexes)}\n"
    )


def read_all(path: Path, indexes: Mapping[int, bytes]) -> int:
    """Read every image of every synset; return their total bytes."""
    if not indexes:
        return sum(len(p.data) for synset in synsets(path) for p in read_synset(path, synset))
    total, starts = 0, list(indexes)
    for synset in synsets(path.with_suffix("")):
        first = bisect_right(starts, synset.offset) - 1
        stop = bisect_left(starts, synset.offset + synset.num_bytes, first + 1)
        opened = [BytesIO(indexes[start]) for start in starts[first:stop]]
        total += sum(len(image.data) for image in read_synset(path, synset, opened))
    return total


def make_archive(path: Path, num_bytes: int) -> int:
    """Write a tar of tars of about ``num_bytes``; return the number of its images."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(1 << 24)
    number = 0
    with tarfile.open(path, "w") as outer:
        while outer.offset < num_bytes:
            inner = io.BytesIO()
            wnid = f"n{number:08d}"
            with tarfile.open(fileobj=inner, mode="w") as synset:
                for size in rng.integers(*IMAGE_BYTES, IMAGES_PER_SYNSET):
                    start = int(rng.integers(len(noise) - size))
                    add(synset, f"{wnid}_{number}.JPEG", noise[start : start + size])
                    number += 1
            add(outer, f"{wnid}.tar", inner.getvalue())
    return number


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def shell(command: str) -> None:
    """Run a shell command and discard its output."""
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)


def memory_of(work: Callable[..., object], *args: object) -> str:
    """Describe the peak memory of a process that runs ``work``, and of one that only imports."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for task in (partial(work, *args), int):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_peak, args=(sender, task))
        process.start()
        peaks.append(receiver.recv())
        process.join()
    return f"peak memory {peaks[0]:.0f} MB, {peaks[1]:.0f} MB of them imports"


def _peak(sender: "multiprocessing.connection.Connection", work: Callable[[], object]) -> None:
    work()
    # Not getrusage: its peak is inherited from a parent that used more.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    sender.send(int(line.split()[1]) / 1024)


if __name__ == "__main__":
    main()
