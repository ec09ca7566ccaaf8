"""What became of the last attempt at a stage: ``attempt.json`` in the stage's folder.

The driver writes it when a stage starts and when it ends without an output. A driver that was
killed leaves the state ``running``; the workdir's lock then tells that nothing runs any more.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from orchestration.errors import PipelineError, StageError
from orchestration.storage.lock import held_since
from orchestration.storage.store import Store

ATTEMPT: Final = "attempt.json"
AttemptState = Literal["running", "failed", "interrupted"]
_MAX_CHARS: Final = 2000
_UNSHOWN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"Control characters, and halves of characters, which come from file names that are not UTF-8."
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*")
_EARLIER_CAUSE: Final = re.compile(
    r".*\n\n(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):\n\n"
)


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a stage."""

    state: AttemptState
    since: float
    "Start of a running attempt, end of another one, in seconds since the epoch."
    error: str = ""
    "Message of a failed attempt."


def write_attempt(folder: Store, state: AttemptState, error: str = "") -> None:
    """Record the state of the attempt that runs or has just ended."""
    record = asdict(Attempt(state, time.time(), error))
    folder.write_bytes(ATTEMPT, json.dumps(record).encode())


def read_attempt(workdir: Store, folder: Store) -> Attempt | None:
    """Return the last attempt at a stage that has no output, or None if none is readable.

    An attempt counts as interrupted if the driver that started it holds the lock no more.

    Args:
        workdir: holds the lock.
        folder: folder of the stage.
    """
    if not folder.exists(ATTEMPT):
        return None
    try:
        values: dict[str, Any] = json.loads(folder.read(ATTEMPT))
        attempt = Attempt(**values)
    except (ValueError, TypeError):  # damaged; it is only a remark
        return None
    taken_at = held_since(workdir)
    if attempt.state == "running" and (taken_at is None or attempt.since < taken_at):
        return Attempt("interrupted", attempt.since)
    return attempt


def error_words(error: BaseException) -> str:
    """Return the message of an error for the user: no traceback, no endless value.

    The type is named unless the message was written for the user; ``KeyError('x')`` alone
    would read ``'x'``. Of a group, the members are shown.
    """
    if isinstance(error, BaseExceptionGroup):
        text = f"{error.message}: {'; '.join(map(error_words, error.exceptions))}"
    else:
        text = str(error)
    if not isinstance(error, PipelineError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], without_tracebacks(text))
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]} … (the log has the rest)"


def without_tracebacks(text: str) -> str:
    """Return a text with each traceback replaced by its last line, the exception itself."""
    text = _TRACEBACK.sub("", text)
    while (shorter := _EARLIER_CAUSE.sub("", text)) != text:
        text = shorter
    return text.rstrip()


def combined_error(
    failed: Mapping[str, BaseException], unreached: Mapping[str, str]
) -> PipelineError:
    """Return one error for all failed stages; a single one keeps its type."""
    lines = [named_after(name, error_words(error)) for name, error in failed.items()]
    if len(failed) > 1:
        lines.insert(0, f"{len(failed)} stages failed")
    if unreached:
        names = ", ".join(f"{name} (needs {need})" for name, need in unreached.items())
        lines.append(f"not run: {names}")
    errors = list(failed.values())
    kind = type(errors[0]) if len(errors) == 1 else StageError
    return (kind if issubclass(kind, PipelineError) else StageError)("\n".join(lines))


def named_after(stage: str, words: str) -> str:
    """Return an error's words with the stage's name in front, once."""
    return words if stage == "workflow" or words.startswith(f"{stage}:") else f"{stage}: {words}"
