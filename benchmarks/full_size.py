"""A rehearsal of the paper's row counts without images: time and memory of each step.

    python benchmarks/full_size.py [--fraction 0.1] [--cpus 2] [--folder DIR] [--smoke]

Draws the outputs of all sources (``full_size_tables.py``), runs plan, curation, the data report,
the text tokenizer and the text tokens, draws the image tokens (``full_size_tokens.py``), builds the
order of an epoch, looks up a thousand steps, and prints plan and status of the training. Each step
is a process of its own. Prints seconds, peak memory of the driver and of the largest worker, both
beside the plan's prediction, and what a linear extrapolation gives at the full size. The ratio is
of the measured memory of a worker to the predicted one. Exits with 1 where a worker holds more than
4 GB, or a prediction is wrong by more than a factor of two.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from full_size_measured import COMMANDS, Measured, Options
from measuring import parse_options
from rich.console import Console
from rich.table import Table

from orchestration.reporting.results import human_bytes, human_number, human_seconds

MEASURED = "measured.json"
MOST_BYTES = 4_000_000_000
MOST_FACTOR = 2.0
STEPS = (
    "prepare", "draw sources", "plan", "curate", "data_report", "text_tokenizer", "text_tokens",
    "draw tokens", "order", "plan of training", "status",
)  # fmt: skip
"In their order; each runs in a process of its own."
COLUMNS = (
    "rows", "time", "driver", "worker", "predicted", "bytes",
    "full: time", "predicted", "bytes",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fraction", type=float, default=0.1, help="of the full number of rows")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--chars-per-document", type=int, default=1000, help="mean length")
    parser.add_argument("--folder", type=Path, help="existing steps are kept; default: temporary")
    parser.add_argument("--step", help="used internally")
    options = parse_options(parser, fraction=0.0003)
    if options.step:
        measure(options.step, chosen(options, options.folder))
    elif options.folder:
        sys.exit(rehearse(options, options.folder.absolute()))
    else:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            sys.exit(rehearse(options, Path(folder)))


def chosen(options: argparse.Namespace, folder: Path) -> Options:
    """Return the options of the steps."""
    return Options(
        folder, options.fraction, options.cpus, options.chars_per_document, options.smoke
    )


def measure(step: str, options: Options) -> None:
    """Run a step in this process, and write what it measured."""
    work = COMMANDS.get(step)
    if work is None:
        from full_size_steps import STEPS as OTHERS  # loads torch

        work = OTHERS[step]
    (options.folder / MEASURED).write_text(json.dumps(asdict(work(options))))


def rehearse(options: argparse.Namespace, folder: Path) -> int:
    """Run all steps in turn, print them, and return the exit status."""
    table = Table("step", title=f"{options.fraction:g} of the full number of rows")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    failures: list[str] = []
    notes: list[str] = []
    for name in STEPS:
        measured = run(name, options, folder)
        table.add_row(*cells(name, measured, options.fraction))
        failures += judged(name, measured, options.smoke)
        if (at_full := measured.predicted_full or 0) > MOST_BYTES:
            notes.append(f"{name}: at the full size a worker is predicted {human_bytes(at_full)}")
    Console(width=120).print(table)
    for line in notes:
        sys.stdout.write(f"note: {line}\n")
    for line in failures:
        sys.stdout.write(f"FAILED: {line}\n")
    return 1 if failures else 0


def run(name: str, options: argparse.Namespace, folder: Path) -> Measured:
    """Run a step in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    command += ["--fraction", str(options.fraction), "--cpus", str(options.cpus)]
    command += ["--chars-per-document", str(options.chars_per_document)]
    command += ["--smoke"] if options.smoke else []
    folder.mkdir(exist_ok=True)
    log = folder / f"{name.replace(' ', '_')}.log"
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"{name} failed:\n{log.read_text()[-3000:]}")
    measured = Measured(**json.loads((folder / MEASURED).read_text()))
    ratio = (
        f"; {measured.worker / measured.predicted:.2f}x of the predicted memory"
        if (measured.predicted)
        else ""
    )
    sys.stdout.write(
        f"{name}: {measured.seconds:.1f} s, driver {human_bytes(measured.driver)}, worker "
        f"{human_bytes(measured.worker)}{ratio}\n"
    )
    sys.stdout.flush()
    return measured


def cells(name: str, measured: Measured, fraction: float) -> list[str]:
    """Return the row of the table of a step."""
    is_scaled = bool(measured.rows)
    return [
        name,
        human_number(measured.rows) if is_scaled else "",
        human_seconds(measured.seconds),
        human_bytes(measured.driver),
        human_bytes(measured.worker) if measured.worker else "",
        human_bytes(measured.predicted) if measured.predicted else "",
        human_bytes(measured.bytes) if measured.bytes else "",
        human_seconds(measured.seconds / fraction) if is_scaled else "",
        human_bytes(measured.predicted_full) if measured.predicted_full else "",
        human_bytes(measured.bytes / fraction) if measured.bytes else "",
    ]


def judged(name: str, measured: Measured, smoke: bool) -> list[str]:
    """Return what is wrong with the memory of a step."""
    failures = []
    largest = max(measured.worker, measured.driver)
    if largest > MOST_BYTES:
        failures.append(f"{name}: a process held {human_bytes(largest)}")
    if measured.predicted and not smoke:
        factor = measured.worker / measured.predicted
        if not 1 / MOST_FACTOR <= factor <= MOST_FACTOR:
            failures.append(f"{name}: {factor:.2f}x of the predicted memory")
    return failures


if __name__ == "__main__":
    main()
