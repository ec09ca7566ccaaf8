"""The log of one MLflow run: parameters, metrics and files, of which none is lost in silence.

An answer of the tracking server is one of three things. *Accepted*. *Later*: the server does not
answer, or refuses the credentials; metrics stay queued and are sent again. *Refused*: waiting
changes nothing. If the run itself is gone, a new run replaces it; a single metric or parameter
that the server does not take is left out and named.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from orchestration.errors import PipelineError
from orchestration.manifest import manifest_sha256
from orchestration.masking import masked, masked_values
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
"Shows one line to the user."

_MAX_PARAM_LENGTH: Final = 500
_MAX_PARAMS: Final = 100
_MAX_BATCH: Final = 900
_MAX_WAITING: Final = 1_000_000
"Metrics queued for an unreachable server; the oldest are dropped first."
_MAX_DIGEST: Final = 36
_PASSING_STATUSES: Final = (401, 403, 408, 409, 429)


class _Answer(Enum):
    ACCEPTED = auto()
    LATER = auto()
    REFUSED = auto()


def is_refusal(error: Exception) -> bool:
    """Return whether waiting cannot change this answer of MLflow."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, PipelineError):
        return True
    if not isinstance(error, MlflowException):
        return False
    status = int(error.get_http_status_code())
    return 400 <= status < 500 and status not in _PASSING_STATUSES


class RunLog:
    """Writes to one MLflow run. Picklable, so a training worker can write too.

    If the server was unreachable when the run was to be opened, the next call opens it.
    """

    def __init__(
        self,
        uri: str,
        run_id: str | None,
        open_run: Callable[[], str] | None = None,
        tell: Tell = logger.warning,
    ):
        self.uri = uri
        self.run_id = run_id
        self._open = open_run
        self._tell = tell
        self._client: Any = None
        self._waiting: list[tuple[str, float, int, int]] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "_client": None, "_waiting": [], "_told": set()}
        for name in ("_lock", "_sending", "_tell"):  # a worker has no console
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _sending=threading.Lock())
        self._tell = logger.warning

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters without secrets; the keys of nested sections become dotted names."""
        from mlflow.entities import Param

        entries = [
            Param(key, str(masked_values(value))[:_MAX_PARAM_LENGTH])
            for key, value in _flatten(values).items()
        ]
        for i in range(0, len(entries), _MAX_PARAMS):
            self._send("params", entries[i : i + _MAX_PARAMS], logger.warning)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Queue the metrics of one step; :meth:`flush` sends them."""
        now = int(time.time() * 1000)
        self._queue([(name, float(value), now, step) for name, value in values.items()])

    def flush(self) -> None:
        """Send the queued metrics; those that cannot be sent stay queued."""
        from mlflow.entities import Metric

        with self._sending:
            while batch := self.unsent()[:_MAX_BATCH]:
                answer = self._send("metrics", [Metric(*entry) for entry in batch], self._say)
                if answer is _Answer.LATER:
                    return
                with self._lock:  # more may have arrived meanwhile
                    del self._waiting[: len(batch)]

    def unsent(self) -> list[tuple[str, float, int, int]]:
        """Return the queued metrics as (name, value, milliseconds since the epoch, step)."""
        with self._lock:
            return list(self._waiting)

    def send_again(self, metrics: Iterable[Sequence[Any]]) -> None:
        """Queue and send metrics that :meth:`unsent` returned in another process."""
        self._queue([(str(n), float(v), int(t), int(s)) for n, v, t, s in metrics])
        self.flush()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the artifacts of the run."""
        self._do(f"{path.name}", "log_artifact", str(path), folder)

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run; unlike a parameter it may change."""
        self._do(f"tag {name}", "set_tag", name, masked(value))

    def inputs(self, folders: Mapping[str, Store]) -> None:
        """Log the input datasets of a stage, each with the digest of its manifest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", "input")]
        datasets = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=manifest_sha256(folder)[:_MAX_DIGEST],
                    source_type="local" if folder.is_local else "s3",
                    source=json.dumps({"uri": masked(folder.uri)}),
                ),
                tags,
            )
            for name, folder in folders.items()
        ]
        if datasets:
            self._do("inputs", "log_inputs", datasets)

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.flush()
        if left := len(self.unsent()):
            self._say(f"{left} metrics could not be sent to MLflow at {masked(self.uri)}")
        self._do(f"the final status {status}", "set_terminated", status)

    def client(self) -> Any:
        """Return the MLflow client, made on first use."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client

    def _queue(self, entries: list[tuple[str, float, int, int]]) -> None:
        with self._lock:
            self._waiting += entries
            dropped = len(self._waiting) - _MAX_WAITING
            if dropped > 0:
                # The first batch may be on its way to the server.
                del self._waiting[_MAX_BATCH : _MAX_BATCH + dropped]
        if dropped > 0:
            self._say(
                f"MLflow at {masked(self.uri)} has not answered for long: the oldest metrics are "
                "dropped"
            )

    def _send(self, kind: str, entries: list[Any], say: Tell) -> _Answer:
        """Log metrics or parameters; if some are refused, log the others and name those."""
        what = kind if len(entries) > 1 else f"{kind} {entries[0].key}"
        answer = self._do(what, "log_batch", say=say, **{kind: entries})
        if answer is not _Answer.REFUSED or len(entries) == 1:
            return answer
        half = len(entries) // 2
        if self._send(kind, entries[:half], say) is _Answer.LATER:
            return _Answer.LATER
        return self._send(kind, entries[half:], say)

    def _do(
        self, what: str, method: str, *args: Any, say: Tell | None = None, **kwargs: Any
    ) -> _Answer:
        """Call the client; report a failure of the server instead of raising it."""
        for _ in range(2):
            try:
                self._call(method, *args, **kwargs)
                return _Answer.ACCEPTED
            except Exception as error:
                line = masked(f"MLflow at {self.uri} did not accept {what}: {error}")
                logger.warning(line)
                if not is_refusal(error):
                    self._say(
                        f"MLflow at {masked(self.uri)} does not accept data at present; metrics "
                        "are kept and sent later, the log has its answer"
                    )
                    return _Answer.LATER
                if self.run_id is None:  # no run can be opened, and the error says why
                    self._say(masked(str(error)))
                    return _Answer.LATER
                if self._open is None or not self._is_gone():
                    if len(next(iter(kwargs.values()), [])) <= 1:
                        (say or self._say)(line)
                    return _Answer.REFUSED
                self.run_id = None  # the next call opens a new run
        return _Answer.LATER

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self.run_id is None:
            assert self._open is not None
            self.run_id = self._open()
        getattr(self.client(), method)(self.run_id, *args, **kwargs)

    def _is_gone(self) -> bool:
        """Return whether the run no longer exists or was deleted."""
        try:
            run = self.client().get_run(self.run_id)
        except Exception as error:
            return is_refusal(error)
        return str(run.info.lifecycle_stage) == "deleted"

    def _say(self, line: str) -> None:
        """Tell the user a line once."""
        if line not in self._told:
            self._told.add(line)
            self._tell(line)


@contextmanager
def terminal_state(
    finish: Callable[[str], None], stopping: threading.Event | None = None
) -> Iterator[None]:
    """End an MLflow run as FINISHED, FAILED or KILLED, depending on how the block ends."""
    try:
        yield
    except KeyboardInterrupt:
        finish("KILLED")
        raise
    except BaseException:
        finish("KILLED" if stopping is not None and stopping.is_set() else "FAILED")
        raise
    finish("FINISHED")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
