"""The recipe of the dataset-to-checkpoint workflow: each section is the parameters of a stage."""

from typing import Annotated, Final

from pydantic import Field, model_validator

from dataprep.miniweb.corpora import WebSize
from orchestration import Recipe
from orchestration.params import StageParams
from pipelines import import_pairs
from pipelines.acquisition import Params as AcquisitionParams
from pipelines.curate import Params as CurateParams
from pipelines.documents import CorpusParams
from pipelines.documents import Params as DocumentsParams
from pipelines.download import Params as DownloadParams
from pipelines.evaluate import Params as EvaluateParams
from pipelines.export import Params as ExportParams
from pipelines.image_tokenizer import Params as ImageTokenizerParams
from pipelines.image_tokens import Params as ImageTokensParams
from pipelines.import_folder import Params as ImportFolderParams
from pipelines.import_images import Params as ImportImagesParams
from pipelines.index import ListParams
from pipelines.index import Params as IndexParams
from pipelines.pair_tokens import Params as PairTokensParams
from pipelines.pretrain import Params as PretrainParams
from pipelines.text_tokenizer import Params as TextTokenizerParams
from pipelines.text_tokens import Params as TextTokensParams

Source = Annotated[
    IndexParams | import_pairs.Params | ImportImagesParams | ImportFolderParams | DocumentsParams,
    Field(discriminator="format"),
]
PictureSource = Annotated[
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
    "Rows of SBU's JSON file: other pictures."
    num_own: int = Field(default=0, ge=0)
    "Rows of an own list: kinds of files, behaviours of servers, copies of other pictures."
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
    "By name: lists of pairs, archives of pictures, corpora of documents."
    held_apart: dict[Annotated[str, Field(pattern=SHORT_NAME)], PictureSource] = Field(
        default_factory=dict
    )
    "By name: pictures that models are evaluated on; what looks like them is not trained on."
    download: DownloadParams
    curate: CurateParams = CurateParams()
    acquisition: AcquisitionParams = AcquisitionParams()
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
            (ImportImagesParams | ImportFolderParams, "archive or folder of pictures"),
            (CorpusParams, "corpus of documents"),
        ):
            if not any(isinstance(source, kind) for source in self.sources.values()):
                raise ValueError(f"sources: at least one {word} is needed")
        if twice := self.sources.keys() & self.held_apart.keys():
            raise ValueError(f"held_apart: {sorted(twice)[0]} is the name of a source as well")
        tokenizer = self.image_tokenizer
        grid = self.train.network.config(vocabulary=1, codes=1).grid
        if grid * tokenizer.patch_size != tokenizer.image_size:
            raise ValueError(
                f"image_tokenizer.image_size is {tokenizer.image_size}, but the network's grid of "
                f"{grid} x {grid} patches needs {grid} * {tokenizer.patch_size} = "
                f"{grid * tokenizer.patch_size} pixels"
            )
        length = self.train.network.config(vocabulary=1, codes=1).max_text_length
        if max(self.text_tokens.length, self.train.caption_length) > length:
            raise ValueError(f"texts are longer than train.network.max_text_length = {length}")
        return self
