"""What every source of a recipe is: parameters that name its files and know its stages."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Protocol

from orchestration import Stage
from orchestration.errors import RecipeError
from orchestration.params import StageParams
from pipelines.ingest.download import Params as DownloadParams

Kind = Literal["pairs", "images", "texts"]
"What the last stage of a source gives: images with captions, images alone, documents."


class Source(StageParams):
    """One entry of a recipe's ``sources``; ``format`` chooses the class."""

    kind: ClassVar[Kind]
    file_errors: ClassVar[tuple[type[Exception], ...]] = ()
    "Raised by the reader for a file that is not of this format; its message names the file."
    license: ClassVar[str] = "not stated; ask the owner of the files"
    "License of the data as its publisher states it, for the card of a model."

    format: str
    "Name of the format."
    held_out: bool = False
    "Whether all rows of the source are held out from training, for `evaluate`."

    @abstractmethod
    def stages(self, name: str, download: DownloadParams | None) -> tuple[Stage, ...]:
        """Return the stages that read this source, in their order.

        The last one gives the images or documents; those before it only prepare them.

        Args:
            name: of the source in the recipe.
            download: how images are fetched; only a source that lists URLs needs it.
        """


class NamesFiles(Protocol):
    """Parameters that name files of a format, such as a :class:`Source`."""

    @property
    def file_errors(self) -> tuple[type[Exception], ...]:
        """See :class:`Source`."""


@contextmanager
def as_recipe_errors(source: NamesFiles) -> Iterator[None]:
    """Turn what the reader of a source raises for a wrong file into an error of the recipe.

    Raises:
        RecipeError: a file is not of the source's format.
    """
    try:
        yield
    except source.file_errors as error:
        raise RecipeError(str(error)) from None
