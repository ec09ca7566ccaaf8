"""The recipe of the dataset-to-checkpoint workflow: each section is the parameters of a stage."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, model_validator

from dataprep.miniweb.corpora import WebSize
from model.training.batch import Stream
from orchestration import Recipe
from orchestration.params import StageParams
from pipelines.curate.curate import Params as CurateParams
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.index import PairList
from pipelines.ingest.source import Kind
from pipelines.ingest.sources.registry import AnyImageSource, AnySource
from pipelines.pretrain.evaluation.params import Params as EvaluateParams
from pipelines.pretrain.export import Params as ExportParams
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.report.data_report import Params as DataReportParams
from pipelines.tokens.given_codes import STAGES as GIVEN_CODES
from pipelines.tokens.given_codes import Params as GivenCodesParams
from pipelines.tokens.given_weights import num_codes_of
from pipelines.tokens.image_tokenizer import Params as ImageTokenizerParams
from pipelines.tokens.image_tokens import Params as ImageTokensParams
from pipelines.tokens.pair_tokens import Params as PairTokensParams
from pipelines.tokens.text_tokenizer import Params as TextTokenizerParams
from pipelines.tokens.text_tokens import Params as TextTokensParams

SHORT_NAME: Final = r"^[a-z][a-z0-9_]*$"
SOURCE_KINDS: Final[dict[Kind, str]] = {
    "pairs": "source of images with captions",
    "images": "source of images without captions",
    "texts": "corpus of documents",
}
"What each kind of source is, in words."
STREAM_KINDS: Final[dict[Stream, Kind]] = {"pair": "pairs", "image": "images", "text": "texts"}
"The kind of source that each stream of pretraining needs."


class MiniwebParams(StageParams):
    """The drawn miniature web: files for the sources, and a server for their images."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    "Seed of everything that is drawn."
    num_cc3m: int = Field(ge=1)
    "Number of rows of the CC3M list."
    num_cc12m: int = Field(ge=1)
    "Number of rows of the CC12M list."
    num_classes: int = Field(ge=1, le=64)
    "Number of classes of the ImageNet-21K archive."
    num_images_per_class: int = Field(ge=1)
    "Number of images of each class of the ImageNet-21K archive."
    num_documents: int = Field(ge=1)
    "Number of documents of the JSON-lines corpus."
    num_sbu: int = Field(default=0, ge=0)
    "Number of rows of SBU's two files of lines."
    num_sbu_json: int = Field(default=0, ge=0)
    "Number of rows of SBU's JSON file, which has other images."
    num_own: int = Field(default=0, ge=0)
    "Number of rows of the user's own list: image formats, server behaviors, planted copies."
    num_coco: int = Field(default=0, ge=0)
    "Number of COCO images."
    num_visual_genome: int = Field(default=0, ge=0)
    "Number of Visual Genome images."
    num_webdataset: int = Field(default=0, ge=0)
    "Number of samples in WebDataset tars."
    num_wikipedia: int = Field(default=0, ge=0)
    "Number of pages of the Wikipedia dump; some of them are not articles."
    num_openwebtext: int = Field(default=0, ge=0)
    "Number of OpenWebText documents."
    num_books: int = Field(default=0, ge=0)
    "Number of books, each a text file."
    num_vqa: int = Field(default=0, ge=0)
    "Number of images of VQAv2, each with several questions."
    num_nlvr2: int = Field(default=0, ge=0)
    "Number of pairs of images of NLVR2, each with a sentence or two."
    num_coco_retrieval: int = Field(default=0, ge=0)
    "Number of COCO images with five captions each that fit no other image, in Karpathy's splits."
    num_flickr30k: int = Field(default=0, ge=0)
    "Number of Flickr30K images with five captions each that fit no other image."
    num_nocaps: int = Field(default=0, ge=0)
    "Number of NoCaps images, half of them without captions."
    num_imagenet1k_classes: int = Field(default=0, ge=0, le=65)
    "Number of classes of ImageNet-1K's folders; from four on, two classes have the same names."
    num_images_per_imagenet1k_class: int = Field(default=0, ge=0)
    "Number of training images of each class of ImageNet-1K."
    num_glue: int = Field(default=0, ge=0)
    "Number of examples of each task of GLUE, over all splits."
    num_coco_instances: int = Field(default=0, ge=0)
    "Number of images with boxes and masks, over all splits."
    num_ade20k: int = Field(default=0, ge=0)
    "Number of images with label maps, over all splits."

    def size(self) -> WebSize:
        """Return the sizes as ``dataprep.miniweb`` takes them."""
        return WebSize(**self.model_dump())


def check_contacts(
    section: str, sources: Mapping[str, AnySource], download: DownloadParams | None
) -> None:
    """Check that hosts can learn who downloads the images of a section's sources.

    Raises:
        ValueError: ``download.contact`` is missing.
    """
    for name, source in sources.items():
        if not isinstance(source, PairList) or source.names_local_images:
            continue
        if download is None or download.contact is None:
            raise ValueError(
                f"download.contact: needed to download the images of {section}.{name}; "
                "set it to an e-mail address or URL of yours"
            )


class PretrainRecipe(Recipe):
    """From source lists to a checkpoint."""

    miniweb: MiniwebParams | None = None
    "Sizes of the miniature web to draw and serve; null if the sources are real."
    sources: dict[Annotated[str, Field(pattern=SHORT_NAME)], AnySource]
    "Lists of pairs, archives of images and corpora of documents to train on, by name."
    evaluation_sets: dict[Annotated[str, Field(pattern=SHORT_NAME)], AnyImageSource] = Field(
        default_factory=dict
    )
    "Images that models are evaluated on, by name; images that look like them are not trained on."
    flip: bool = True
    "Whether half of all crops are mirrored; false where left and right differ, as in text."
    download: DownloadParams | None = None
    "How images are downloaded, and how those of own lists are stored."
    curate: CurateParams = CurateParams()
    "Which images and captions are kept."
    data_report: DataReportParams = DataReportParams()
    "What the data report shows."
    text_tokenizer: TextTokenizerParams = TextTokenizerParams()
    "How the text vocabulary is trained."
    text_tokens: TextTokensParams = TextTokensParams()
    "How documents are packed into sequences."
    image_tokenizer: ImageTokenizerParams = ImageTokenizerParams()
    "How the image tokenizer (VQ-KD) is trained."
    image_tokens: ImageTokensParams = ImageTokensParams()
    "How images are turned into views with codes."
    pair_tokens: PairTokensParams = PairTokensParams()
    "How image-text pairs are turned into views with codes and token ids."
    given_codes: GivenCodesParams | None = None
    "Codes of another tokenizer that are predicted in place of VQ-KD's; null for VQ-KD's."
    train: PretrainParams = PretrainParams()
    "How the network is pretrained."
    evaluate: EvaluateParams = EvaluateParams()
    "How a checkpoint is evaluated on held-out rows."
    export: ExportParams = ExportParams()
    "What the export holds."

    @property
    def num_codes(self) -> int:
        """Number of codes that the network predicts, as far as it is known before."""
        if self.given_codes is not None:
            return self.given_codes.num_codes
        return num_codes_of(self.image_tokenizer, self.image_tokenizer.weights)

    def rows_stage(self, stream: Stream) -> str:
        """Return the name of the stage whose rows a stream of pretraining reads."""
        tokens = f"{stream}_tokens"
        return tokens if self.given_codes is None else GIVEN_CODES.get(tokens, tokens)

    @model_validator(mode="after")
    def _given_codes_are_used(self) -> "PretrainRecipe":
        if self.given_codes is None:
            return self
        if self.train.codes == "online":
            raise ValueError(
                "given_codes: train.codes = online computes VQ-KD's codes of new views, for which "
                "no codes are given; set train.codes=stored, or remove given_codes"
            )
        if self.train.network.image_target == "pixels":
            raise ValueError(
                "given_codes: train.network.image_target = pixels predicts no codes; set it to "
                "codes, or remove given_codes"
            )
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> "PretrainRecipe":
        kinds = {source.kind for source in self.sources.values() if not source.held_out}
        counts = self.train.samples_per_step
        for stream, kind in STREAM_KINDS.items():
            if counts[stream] and kind not in kinds:
                raise ValueError(
                    f"sources: at least one {SOURCE_KINDS[kind]} that is not held_out is needed, "
                    f"or set train.{stream}s_per_step=0 (now {counts[stream]})"
                )
        pairs = {
            name
            for name, source in self.sources.items()
            if source.kind == "pairs" and not source.held_out
        }
        weights = self.train.source_weights
        if unknown := weights.keys() - pairs:
            raise ValueError(
                f"train.source_weights: {min(unknown)} is no source of images with captions that "
                f"is trained on; these are: {', '.join(sorted(pairs)) or 'none'}"
            )
        if counts["pair"] and not any(weights.get(name, 1) for name in pairs):
            raise ValueError(
                "train.source_weights: the weights of all sources of images with captions are 0; "
                f"raise one, or set train.pairs_per_step=0 (now {counts['pair']})"
            )
        if not any(counts.values()):
            raise ValueError("train: images_per_step, texts_per_step and pairs_per_step are all 0")
        if not kinds & {"texts", "pairs"} and self.text_tokenizer.model is None:
            raise ValueError(
                "sources: no source has text to train a vocabulary on; add one, or set "
                "text_tokenizer.model to a SentencePiece model"
            )
        with_images = any(source.kind != "texts" for source in self.sources.values())
        if not with_images and self.image_tokenizer.weights is None:
            raise ValueError(
                "sources: no source has images to train the image tokenizer on; add one, or set "
                "image_tokenizer.weights to the file of a trained one"
            )
        for section in ("sources", "evaluation_sets"):
            check_contacts(section, getattr(self, section), self.download)
        for name, source in self.evaluation_sets.items():
            if source.held_out:
                raise ValueError(
                    f"evaluation_sets.{name}.held_out: an evaluation set is never trained on; "
                    "remove it, or move the entry to sources"
                )
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
        for key, value in (
            ("text_tokens.length", self.text_tokens.length),
            ("train.max_caption_length", self.train.max_caption_length),
        ):
            if value > length:
                raise ValueError(
                    f"{key} is {value}, longer than train.network.max_text_length = {length}"
                )
        return self
