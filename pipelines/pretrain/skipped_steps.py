"""Records of skipped steps in the stage's folder: which samples they had, and what was wrong.

``skipped/step-<number>`` has the files of each worker, named ``worker-<rank>-of-<workers>``:

- ``.parquet``: every sample of the worker (:mod:`pipelines.pretrain.sample_ids`), its ``loss``
  (mean over its masked positions) and ``is_finite`` (its inputs, loss and gradient);
- ``.safetensors``: tensors of the micro-batches with samples that are not finite, if any;
- ``.json``, written last: the measurements of the step, and the samples that are not finite.

Numbers of steps count from 1. The folder of a step whose data is that of another step, because data
was left out, ends in ``-data-<number>``. A training that goes back removes the records of later
steps (:mod:`orchestration.going_back`). Number and size of the records are limited. A store that
fails is reported and ends no training.
"""

import io
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import Tensor

from model.training.batch import MicroBatch
from model.training.per_sample import PerSample
from model.training.step import StepResult
from orchestration.branches import RECORDS, record_name
from orchestration.errors import PipelineError
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

MAX_RECORDS: Final = 1000
"Number of steps that are recorded."
MAX_DUMPS: Final = 20
"Number of steps, the first ones, whose records may have tensors."
MAX_DUMP_BYTES: Final = 1 << 28
"Size of the tensors of one step, over all workers."
_MAX_NAMED: Final = 100
_WHAT: Final = {
    "loss": "a loss is not finite",
    "gradient": "the gradient is not finite",
    "spike": "a loss spikes",
}


@dataclass(frozen=True)
class SkippedSteps:
    """Records the skipped steps of one worker."""

    folder: Store
    "Folder of the stage."
    rank: int
    num_workers: int

    def record(
        self,
        step: int,
        data_step: int,
        result: StepResult,
        batches: Sequence[MicroBatch],
        sample_ids: Callable[[], pa.Table],
    ) -> str:
        """Write the record of a skipped step; return the folder of all records.

        Args:
            step: number of the step, from 0.
            data_step: the step whose data it took.
            result: its measurements.
            batches: its micro-batches.
            sample_ids: returns where its samples come from; it reads the token datasets.
        """
        name = record_name(step) + (f"-data-{data_step + 1:08d}" if data_step != step else "")
        where = self.folder.uri_of(f"{RECORDS}/{name}")
        assert result.fault is not None
        try:
            others = [other for other in self.folder.folders(RECORDS) if other != name]
            if len(others) >= MAX_RECORDS:
                logger.warning(
                    "step %d is skipped: %s; it is not recorded, as %d steps are",
                    *(step + 1, _WHAT[result.fault], len(others)),
                )
                return self.folder.uri_of(RECORDS)
            suspects = self._write(name, step, data_step, result, batches, sample_ids, len(others))
        except (PipelineError, OSError, pa.ArrowException) as error:
            logger.warning(
                "the samples of the skipped step %d are not recorded: %s", step + 1, error
            )
        else:
            if self.rank == 0 or suspects:
                logger.warning(
                    "step %d is skipped: %s; %d samples of worker %d are not finite%s; see %s",
                    *(step + 1, _WHAT[result.fault], len(suspects), self.rank),
                    *(_first(suspects), where),
                )
        return self.folder.uri_of(RECORDS)

    def _write(
        self,
        name: str,
        step: int,
        data_step: int,
        result: StepResult,
        batches: Sequence[MicroBatch],
        sample_ids: Callable[[], pa.Table],
        num_others: int,
    ) -> list[dict[str, Any]]:
        """Write the files of a record; return the samples that are not finite."""
        path = f"{RECORDS}/{name}/worker-{self.rank:05d}-of-{self.num_workers:05d}"
        limit = MAX_DUMP_BYTES // self.num_workers if num_others < MAX_DUMPS else 0
        samples = _with_losses(sample_ids(), result.samples)
        # A micro-batch that only keeps workers in step repeats the samples of another one.
        own = set(samples["micro_batch"].to_pylist())
        if tensors := _tensors(batches, result.samples, own, limit):
            self.folder.write_bytes(f"{path}.safetensors", save(tensors))
        file = io.BytesIO()
        pq.write_table(samples, file, compression="zstd")
        self.folder.write_bytes(f"{path}.parquet", file.getvalue())
        suspects: list[dict[str, Any]] = samples.filter(pc.invert(samples["is_finite"])).to_pylist()
        record = {
            "step": step + 1,
            "data_step": data_step + 1,
            "fault": result.fault,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "grad_norms": result.grad_norms,
            "num_not_finite": len(suspects),
            "not_finite": suspects[:_MAX_NAMED],
        }
        self.folder.write_bytes(f"{path}.json", json.dumps(_plain(record), indent=1).encode())
        return suspects


def skipped_files(folder: Store) -> list[str]:
    """Return the paths of all records in a stage's folder, to be committed with the stage."""
    return [path for path, _ in folder.walk(RECORDS)] if folder.exists(RECORDS) else []


def _with_losses(ids: pa.Table, samples: Sequence[PerSample]) -> pa.Table:
    first = np.cumsum([0, *(len(each.loss) for each in samples[:-1])])
    # A micro-batch that only keeps workers in step has losses, but no rows.
    places = first[ids["micro_batch"].to_numpy()] + ids["index"].to_numpy()
    loss, is_finite = (
        torch.cat([getattr(each, name) for each in samples]).numpy()[places]
        for name in ("loss", "is_finite")
    )
    return ids.append_column("loss", [loss]).append_column("is_finite", [is_finite.tolist()])


def _tensors(
    batches: Sequence[MicroBatch], samples: Sequence[PerSample], numbers: set[int], limit: int
) -> dict[str, Tensor]:
    """Return the tensors of those micro-batches ``numbers`` with samples that are not finite.

    The key is number of the micro-batch, stream and field. Of a micro-batch that would exceed the
    limit in bytes only these samples are taken, as many as fit; ``index`` says which.
    """
    found: dict[str, Tensor] = {}
    for number, (batch, sample) in enumerate(zip(batches, samples, strict=True)):
        suspects = (~sample.is_finite).nonzero()[:, 0]
        if not len(suspects) or number not in numbers:
            continue
        per_sample = _num_bytes(batch.tensors()) // batch.num_samples
        index = torch.arange(batch.num_samples)
        if per_sample * len(index) > limit:
            index = suspects[: limit // max(per_sample, 1)]
        limit -= per_sample * len(index)
        if len(index):
            taken = batch.rows(index).tensors() | {"index": index}
            found |= {f"{number}.{batch.stream}.{name}": t for name, t in taken.items()}
    return found


def _num_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _first(suspects: Sequence[dict[str, Any]]) -> str:
    if not suspects:
        return ""
    sample = suspects[0]
    name = sample["sample_id"] or f"{sample['file']} row group {sample['row_group']}"
    return f", the first is {name} of the {sample['stream']} stream"


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
