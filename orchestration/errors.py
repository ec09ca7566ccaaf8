"""The few named failures of the engine; each message says what was wrong, where, and what to do."""


class PipelineError(Exception):
    """Base of every error whose message is meant for the person who runs the pipeline."""


class RecipeError(PipelineError):
    """The recipe, an override or a file that it names cannot be used. Nothing was written."""


class StoreError(PipelineError):
    """The store cannot be read or written."""


class ManifestError(PipelineError):
    """A committed dataset is damaged or was written by an incompatible version."""


class StageError(PipelineError):
    """A stage failed; what it had committed is kept."""


class LockError(PipelineError):
    """Another driver works on the workdir."""
