"""Every source that a recipe can name: one line each."""

from typing import TYPE_CHECKING, Annotated, Final, Union

from pydantic import Field

from pipelines.ingest.source import Source
from pipelines.ingest.sources.cc3m import Cc3m
from pipelines.ingest.sources.cc12m import Cc12m
from pipelines.ingest.sources.cc_news import CcNews
from pipelines.ingest.sources.coco import Coco
from pipelines.ingest.sources.flickr30k import Flickr30k
from pipelines.ingest.sources.image_folder import ImageFolder
from pipelines.ingest.sources.imagenet21k import ImageNet21k
from pipelines.ingest.sources.jsonl import JsonLines
from pipelines.ingest.sources.openwebtext import OpenWebText
from pipelines.ingest.sources.own_lists import OwnJsonLines, OwnParquet, OwnTable
from pipelines.ingest.sources.parquet import Parquet
from pipelines.ingest.sources.sbu import SbuJson, SbuLines
from pipelines.ingest.sources.text import Text
from pipelines.ingest.sources.visual_genome import VisualGenome
from pipelines.ingest.sources.webdataset import WebDataset
from pipelines.ingest.sources.wikipedia import Wikipedia

SOURCES: Final[tuple[type[Source], ...]] = (
    Cc3m,
    Cc12m,
    SbuLines,
    SbuJson,
    OwnTable,
    OwnJsonLines,
    OwnParquet,
    Coco,
    Flickr30k,
    VisualGenome,
    WebDataset,
    ImageNet21k,
    ImageFolder,
    Text,
    JsonLines,
    Parquet,
    OpenWebText,
    CcNews,
    Wikipedia,
)
IMAGE_SOURCES: Final = tuple(source for source in SOURCES if source.kind != "texts")
"The sources that give images: only these can be evaluation sets."

if TYPE_CHECKING:
    AnySource = Source
    AnyImageSource = Source
else:
    AnySource = Annotated[Union[SOURCES], Field(discriminator="format")]  # noqa: UP007
    AnyImageSource = Annotated[Union[IMAGE_SOURCES], Field(discriminator="format")]  # noqa: UP007
