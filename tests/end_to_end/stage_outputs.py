"""What each stage of a run has put out, compared with what was recorded.

A stage's fingerprint holds the version of its code, so a change of the output needs a new version:
without one, a workdir made by the earlier code passes for fresh. ``stage_outputs.json`` holds each
stage's version, parameters and output. The digests in it hold for one platform and for the pinned
versions of the packages that compute pixels and new_slices; elsewhere names and types are compared.
Of what torch computes, only the structure is recorded: the last bits depend on the processor.
"""

import fnmatch
import hashlib
import inspect
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from orchestration import Dataset, Stage
from orchestration.plan import IDENTITY, records_of
from orchestration.storage.store import Store

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("stage_outputs.json")
COMMAND = "make stage-outputs"
PACKAGES = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "sentencepiece")
"Packages on which the recorded digests depend."

TRAINED_STAGES = ("image_tokenizer", "pretrain", "evaluate")
"Their numbers and JSON files are recorded by structure."
TRAINED_COLUMNS = (
    "*_tokens.*.codes",
    "evaluate.*_features.*trained",
    "evaluate.grounding.[rot]*",  # right, other, third
    "evaluate.likelihood.scores",
    "evaluate.masked.*_sum",
    "evaluate.masked.num_correct",
    "evaluate.shown_*.*",
)
"Columns that torch computes: their types and lengths are recorded."
OMITTED_COLUMNS = ("download/*.rejects.detail",)
"Columns that differ between two runs: the system words a broken connection in more than one way."
OMITTED_KEYS = {"seconds", "rows_per_second", "bytes"}
"Keys of JSON files that differ between two runs; the bytes are those of tables with such columns."
TENSOR_FILES = (".pt", ".safetensors")
NAMED_FILES = (".html", ".png", ".md", ".distcp", ".metadata")
"Files that are recorded by name: they hold times, trained numbers or drawings of them."

NAME_DIGEST = re.compile(r"-[0-9a-f]{16}(\.parquet)$")
"Digest of trained numbers in the name of their file."

KINDS = ("tables", "files", "numbers")
"Kinds of output that a description has."

Content = Mapping[str, Any]


def environment() -> dict[str, str]:
    """The platform and the packages on which the digests depend."""
    versions = {name: version(name) for name in PACKAGES}
    return {"platform": f"{platform.system()} {platform.machine()}", **versions}


def describe(workdir: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Describe the outputs of the first workflow that ran in a workdir."""
    first = min(records_of(Store(workdir)), key=lambda record: record["started_at"])
    return {
        stage.name: _described(stage, Store(workdir / stage.name / first["stages"][stage.name]))
        for stage in stages
    }


def code_files(stages: Sequence[Stage]) -> dict[str, str]:
    """The file in which each stage declares its version."""
    return {s.name: str(Path(inspect.getfile(s.run)).relative_to(ROOT)) for s in stages}


def _described(stage: Stage, folder: Store) -> dict[str, Any]:
    identity = json.loads(folder.read(IDENTITY))
    dataset = Dataset.open(folder)
    tables = {name for part in dataset.manifest.parts for name in part.tables}
    numbers = dict(dataset.manifest.numbers)
    return {
        "version": identity["version"],
        "params": _digest(identity["params"]),
        "inputs": {role: [name for name, _ in of] for role, of in identity["inputs"].items()},
        "tables": {
            name: dict(_columns(f"{stage.name}.{name}", dataset.table(name).read()))
            for name in sorted(tables)
        },
        "files": {
            NAME_DIGEST.sub(r"\1", f.path): _file(stage.name, folder, f.path)
            for f in dataset.manifest.files
        },
        "numbers": {
            name: "trained" if stage.name in TRAINED_STAGES else number
            for name, number in sorted(numbers.items())
        },
    }


def _columns(where: str, table: pa.Table) -> Iterator[tuple[str, str]]:
    yield "rows", str(table.num_rows)
    for field in table.schema:
        column = table[field.name]
        if _matches(f"{where}.{field.name}", OMITTED_COLUMNS):
            found = "omitted"
        elif _matches(f"{where}.{field.name}", TRAINED_COLUMNS):
            found = f"trained, {column.null_count} nulls"
        else:
            found = _digest(column.to_pylist())
        yield f"{field.name}: {field.type}", found


def _file(stage: str, folder: Store, path: str) -> str:
    suffix = Path(path).suffix or Path(path).name
    if suffix in NAMED_FILES:
        return "named"
    if suffix in TENSOR_FILES:
        return _digest(_tensors(folder.fetch(path)))
    if suffix == ".parquet" and stage in TRAINED_STAGES:
        return _digest(dict(_structure_of_table(pq.read_table(folder.fetch(path)))))
    if suffix == ".json":
        content = json.loads(folder.read(path))
        return _digest(_structure(content) if stage in TRAINED_STAGES else _lasting(content))
    return _digest(folder.read(path))


def _structure_of_table(table: pa.Table) -> Iterator[tuple[str, str]]:
    yield "rows", str(table.num_rows)
    for field in table.schema:
        yield field.name, f"{field.type}, {table[field.name].null_count} nulls"


def _tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _structure(load_file(path))
    return _structure(torch.load(path, weights_only=True))


def _structure(value: Any) -> Any:
    """Names, types and lengths, without the values."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, Mapping):
        return {str(key): _structure(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(inner) for inner in value]
    return type(value).__name__


def _lasting(value: Any) -> Any:
    """A JSON value without what differs between two runs."""
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in OMITTED_KEYS}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=_hex)
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:10]


def _hex(value: bytes) -> str:
    return value.hex()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def names_only(stages: Mapping[str, Content]) -> dict[str, Any]:
    """Descriptions without digests: what holds on every platform."""
    return {
        stage: {
            kind: {
                name: sorted(value) if isinstance(value, Mapping) else ""
                for name, value in found[kind].items()
            }
            for kind in KINDS
        }
        for stage, found in stages.items()
    }


def judge(
    recorded: Mapping[str, Content], now: Mapping[str, Content], files: Mapping[str, str]
) -> list[str]:
    """Compare descriptions of stages; return one finding for each that needs something done.

    A stage is at fault if its output differs though its version, its parameters and the outputs
    of its inputs are as they were. Any other difference is expected and must be recorded.

    Args:
        recorded: description of each stage by name.
        now: the same of a run, each stage after its inputs.
        files: file that declares each stage.
    """
    faults, changed, renewed = [], set(), sorted(recorded.keys() - now.keys())
    for name, found in now.items():
        before = recorded.get(name)
        if before is None:
            changed.add(name)
            renewed.append(name)
            continue
        different = differences(before, found)
        if different:
            changed.add(name)
        same_inputs = before["inputs"] == found["inputs"] and not any(
            parent in changed for of in found["inputs"].values() for parent in of
        )
        same_code = all(before[key] == found[key] for key in ("version", "params"))
        if different and same_inputs and same_code:
            faults.append(
                f"{name} gives another output under the same version {found['version']} "
                f"({', '.join(different)}): raise the version of {name} in {files[name]}, then "
                f"run `{COMMAND}`"
            )
        elif different or not same_code or before["inputs"] != found["inputs"]:
            renewed.append(name)
    if renewed and not faults:
        return [f"not as recorded: {', '.join(renewed)}; run `{COMMAND}` and commit the result"]
    return faults


def differences(before: Content, now: Content) -> list[str]:
    """Name what differs between two outputs of a stage."""
    flat = [
        {
            f"{kind} {name} {key}".rstrip(): value
            for kind in KINDS
            for name, inner in content[kind].items()
            for key, value in (inner if isinstance(inner, Mapping) else {"": inner}).items()
        }
        for content in (before, now)
    ]
    names = [*flat[0], *(name for name in flat[1] if name not in flat[0])]
    return [name for name in names if flat[0].get(name) != flat[1].get(name)]


def check(run: str, workdir: Path, stages: Sequence[Stage], *, recording: bool) -> None:
    """Compare the first workflow of a workdir with the record of a run, or record it.

    Where the digests do not hold, names are compared and the test is then skipped.
    """
    now = describe(workdir, stages)
    record = json.loads(RECORD.read_text())
    if recording:
        _write(record["runs"] | {run: now})
        return
    recorded = record["runs"][run]
    if record["environment"] != environment():
        assert names_only(recorded) == names_only(now), f"run `{COMMAND}`"
        pytest.skip(f"names compared alone: digests are of {record['environment']}")
    assert not (findings := judge(recorded, now, code_files(stages))), "\n".join(findings)


def _write(runs: Mapping[str, Mapping[str, Content]]) -> None:
    """Write the record with one line for each table, so that a change of it is readable."""
    found = json.dumps({"environment": environment(), "runs": runs}, indent=1)
    deep = re.compile(r"\n {5,}")  # within the files, the numbers or a table of a stage
    RECORD.write_text(re.sub(r"\n {4}([}\]])", r"\1", deep.sub(" ", found)) + "\n")
