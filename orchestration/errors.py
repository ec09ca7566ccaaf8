"""The engine's exceptions. Each message says what was wrong, where, and what to do."""

from orchestration.masking import masked


class PipelineError(Exception):
    """Base class of the errors whose message is shown to the user without a traceback.

    Secrets of URLs in the message are masked.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class RecipeError(PipelineError):
    """The recipe, an override, or a file that the recipe names is invalid; nothing was written."""


class StoreError(PipelineError):
    """A file of the store cannot be read or written."""


class ManifestError(PipelineError):
    """A committed output or a record is damaged, or was written by an incompatible version."""


class StageError(PipelineError):
    """A stage failed; the parts and checkpoints that it had committed are kept."""


class LockError(PipelineError):
    """Another driver holds, or may hold, the lock of the workdir."""
