"""The recipe of the dataset-to-checkpoint workflow: each section is the parameters of a stage."""

from typing import Annotated, Final

from pydantic import Field, model_validator

from dataprep.miniweb.corpora import WebSize
from orchestration import Recipe
from orchestration.params import StageParams
from pipelines.curate.curate import Params as CurateParams
from pipelines.ingest import import_pairs
from pipelines.ingest.documents import CorpusParams
from pipelines.ingest.documents import Params as DocumentsParams
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.import_image_folder import Params as ImportFolderParams
from pipelines.ingest.import_imagenet21k import Params as ImportImagesParams
from pipelines.ingest.index import ListParams
from pipelines.ingest.index import Params as IndexParams
from pipelines.pretrain.evaluate import Params as EvaluateParams
from pipelines.pretrain.export import Params as ExportParams
from pipelines.pretrain.pretrain import Params as PretrainParams
from pipelines.report.data_report import Params as DataReportParams
from pipelines.tokens.image_tokenizer import Params as ImageTokenizerParams
from pipelines.tokens.image_tokens import Params as ImageTokensParams
from pipelines.tokens.pair_tokens import Params as PairTokensParams
from pipelines.tokens.text_tokenizer import Params as TextTokenizerParams
from pipelines.tokens.text_tokens import Params as TextTokensParams

Source = Annotated[
    IndexParams | import_pairs.Params | ImportImagesParams | ImportFolderParams | DocumentsParams,
    Field(discriminator="format"),
]
ImageSource = Annotated[
    IndexParams | import_pairs.Params | ImportImagesParams | ImportFolderParams,
    Field(discriminator="format"),
]
SHORT_NAME: Final = r"^[a-z][a-z0-9_]*$"


class MiniwebParams(StageParams):
    """Draw and serve the miniature web in the workdir; sources then point into it."""

    seed: int = 0
    num_cc3m: int = Field(ge=1)
    num_cc12m: int = Field(ge=1)
    num_classes: int = Field(ge=1, le=64)
    num_images_per_class: int = Field(ge=1)
    num_documents: int = Field(ge=1)
    num_sbu: int = Field(default=0, ge=0)
    "Rows of SBU's two files of lines."
    num_sbu_json: int = Field(default=0, ge=0)
    "Rows of SBU's JSON file: other images."
    num_own: int = Field(default=0, ge=0)
    "Rows of an own list: kinds of files, behaviors of servers, copies of other images."
    num_coco: int = Field(default=0, ge=0)
    num_visual_genome: int = Field(default=0, ge=0)
    num_webdataset: int = Field(default=0, ge=0)
    num_wikipedia: int = Field(default=0, ge=0)
    "Pages, of which some are no articles."
    num_openwebtext: int = Field(default=0, ge=0)
    num_books: int = Field(default=0, ge=0)

    def size(self) -> WebSize:
        """Return the same for ``dataprep``."""
        return WebSize(**self.model_dump())


class PretrainRecipe(Recipe):
    """From source lists to a checkpoint."""

    miniweb: MiniwebParams | None = None
    sources: dict[Annotated[str, Field(pattern=SHORT_NAME)], Source]
    "By name: lists of pairs, archives of images, corpora of documents."
    evaluation_sets: dict[Annotated[str, Field(pattern=SHORT_NAME)], ImageSource] = Field(
        default_factory=dict
    )
    "By name: images that models are evaluated on; what looks like them is not trained on."
    download: DownloadParams
    curate: CurateParams = CurateParams()
    data_report: DataReportParams = DataReportParams()
    text_tokenizer: TextTokenizerParams = TextTokenizerParams()
    text_tokens: TextTokensParams = TextTokensParams()
    image_tokenizer: ImageTokenizerParams = ImageTokenizerParams()
    image_tokens: ImageTokensParams = ImageTokensParams()
    pair_tokens: PairTokensParams = PairTokensParams()
    train: PretrainParams = PretrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    export: ExportParams = ExportParams()

    @model_validator(mode="after")
    def _parts_agree(self) -> "PretrainRecipe":
        for kind, word in (
            (ListParams | import_pairs.ImportPairsParams, "list of pairs"),
            (ImportImagesParams | ImportFolderParams, "archive or folder of images"),
            (CorpusParams, "corpus of documents"),
        ):
            if not any(isinstance(source, kind) for source in self.sources.values()):
                raise ValueError(f"sources: at least one {word} is needed")
        if twice := self.sources.keys() & self.evaluation_sets.keys():
            raise ValueError(f"evaluation_sets: {sorted(twice)[0]} is the name of a source as well")
        tokenizer = self.image_tokenizer
        grid = self.train.network.config(vocab_size=1, num_codes=1).grid
        if grid * tokenizer.patch_size != tokenizer.image_size:
            raise ValueError(
                f"image_tokenizer.image_size is {tokenizer.image_size}, but the network's grid of "
                f"{grid} x {grid} patches needs {grid} * {tokenizer.patch_size} = "
                f"{grid * tokenizer.patch_size} pixels"
            )
        length = self.train.network.config(vocab_size=1, num_codes=1).max_text_length
        if max(self.text_tokens.length, self.train.caption_length) > length:
            raise ValueError(f"texts are longer than train.network.max_text_length = {length}")
        return self
