"""Parameters of pretraining; defaults are the paper's where it gives them."""

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from model import BEiT3Config
from model.network.config import SIZES, Recomputing
from model.network.starting import Fresh
from model.training import float8
from model.training.batch import Stream
from model.training.cost import ParallelLayout, SampleShape, parameters_by_part, sample_shapes
from model.training.masking import MAX_GRID, num_masked_patches
from model.training.objectives import complete_loss_weights, objectives_of
from model.training.parallel import Sharding
from model.training.spikes import Spikes
from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI, OrOutput, StageParams
from orchestration.training import Steps
from pipelines.pretrain.samples import FeedParams
from pipelines.pretrain.start_source import digest_of_folder, is_folder
from pipelines.training.params import (
    Lr,
    MinLr,
    TrainingLoopParams,
    WarmupSteps,
    WeightDecay,
)

OR_FOLDER: Final = OrOutput(is_folder, digest_of_folder)


class NetworkParams(StageParams):
    """A named size of the network, and changes to it; null keeps the value of the named size."""

    size: Literal["tiny", "small", "base", "large", "giant"] = "base"
    "Named size that the other fields change."
    image_size: int | None = None
    "Side of the input image in pixels."
    patch_size: int | None = None
    "Side of a patch in pixels."
    width: int | None = None
    "Width of the hidden states."
    depth: int | None = None
    "Number of blocks."
    num_heads: int | None = None
    "Number of attention heads."
    ffn_width: int | None = None
    "Hidden width of an expert's feed-forward network."
    fusion_layers: int | None = None
    "Number of last blocks with a vision-language expert."
    attention: Literal["shared", "decoupled"] | None = None
    "Whether both modalities share the attention weights or each has its own."
    experts: Literal["multiway", "shared"] | None = None
    "Whether each modality has its own feed-forward network, or one serves both."
    image_target: Literal["codes", "pixels"] | None = None
    "What is predicted of a masked patch: its code, or its normalized pixels as in MAE."
    subln: bool | None = None
    "Use the additional LayerNorms and the initialization of Magneto."
    max_text_length: int | None = None
    "Largest number of tokens in a text."
    pixel_mean: tuple[float, float, float] | None = None
    "Mean of each RGB channel, subtracted from pixels in 0-1."
    pixel_std: tuple[float, float, float] | None = None
    "Standard deviation of each RGB channel, by which the difference is divided."

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.config(vocab_size=1, num_codes=1)
        return self

    def config(self, *, vocab_size: int, num_codes: int) -> BEiT3Config:
        """Return the network's configuration."""
        assert self.size in SIZES
        changes = self.model_dump(exclude={"size"}, exclude_none=True)
        return BEiT3Config.named(self.size, vocab_size=vocab_size, num_codes=num_codes, **changes)

    def weight_bytes(self) -> int:
        """Return the bytes of the weights, for the default numbers of pieces and codes."""
        return 4 * sum(parameters_by_part(self.config(vocab_size=64_010, num_codes=8192)).values())


class Params(TrainingLoopParams):
    """Pretraining; defaults are the paper's where it gives them."""

    uneven_workers: ClassVar[bool] = True
    network: NetworkParams = NetworkParams()
    "Size and architecture of the network."
    start_from: Annotated[str | None, EXTERNAL_FILE, OR_URI, OR_FOLDER] = None
    "Weights to start from: a workdir, checkpoint or export, a released file, or a URI of one."
    start_fresh: list[Fresh] = Field(default_factory=list)
    "What of these weights is left out, as its tokenizer is another one: vocabulary, codebook."
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    "Seed of weights, order, masks and crops of the training; null is the recipe's seed."
    steps: Steps = 1_000_000
    images_per_step: int = Field(default=2048, ge=0)
    "Number of images without caption in a step, over all workers."
    texts_per_step: int = Field(default=2048, ge=0)
    "Number of packed texts in a step, over all workers."
    pairs_per_step: int = Field(default=2048, ge=0)
    "Number of image-text pairs in a step, over all workers."
    substreams: int = Field(default=256, ge=1)
    "Number of substreams of the data; a multiple of num_workers, or at least the most of a range."
    shuffle_window: int = Field(default=8, ge=1)
    "Number of row groups in a substream that are shuffled together."
    lr: Lr = 1e-3
    min_lr: MinLr = 1e-5
    warmup_steps: WarmupSteps = 10_000
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.98,
    )
    "Decay rates of AdamW's moving averages."
    eps: float = Field(default=1e-6, ge=0)
    "AdamW's epsilon."
    weight_decay: WeightDecay = 0.05
    max_grad_norm: float | None = Field(default=3.0, gt=0)
    "Norm to which larger gradients are scaled down; null does not limit it."
    spike_factor: float | None = Field(default=None, gt=1)
    "Skip a step in which the loss of an objective exceeds its median times this; null skips none."
    spike_window: int = Field(default=100, ge=1)
    "Number of accepted steps over which that median is taken; no spike is found before them."
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    "Data type in which shards of gradients are summed; bf16 halves their traffic and rounds them."
    float8: bool = False
    "Compute the blocks' linear layers in float8 (torchao): for wide networks on an H100 or later."
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    "Stochastic depth rate of the last block; earlier blocks have proportionally smaller rates."
    text_mask_ratio: float = Field(default=0.15, gt=0, lt=1)
    "Fraction of masked tokens in a text."
    pair_text_mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    "Fraction of masked tokens in the caption of a pair."
    image_mask_ratio: float = Field(default=0.4, gt=0, lt=1)
    "Fraction of masked patches in an image."
    pair_masking: Literal["separate", "joint"] = "separate"
    "Mask one modality of each pair, or both at once."
    codes: Literal["stored", "online"] = "stored"
    "Take stored views and codes, or draw a view and compute its codes at each visit as BEiT v2."
    pairs_by: Literal["caption", "image"] = "caption"
    "An epoch of the pair stream shows every caption once, or every image once with any caption."
    source_weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(default_factory=dict)
    "How many times an epoch shows the pairs of a source, by source name; 1 for other sources."
    max_caption_length: int = Field(default=64, ge=4)
    "Number of tokens to which longer captions are truncated, including the begin and end tokens."
    isolate_documents: bool = False
    "Block attention between the documents that are packed into one text."
    color_jitter: float = Field(default=0.4, ge=0, lt=1)
    "Strength of random brightness, contrast and saturation changes of the network's input."
    loss_weights: Annotated[
        dict[str, Annotated[float, Field(ge=0)]], AfterValidator(complete_loss_weights)
    ] = Field(default_factory=lambda: complete_loss_weights({}))
    "Factor of each objective's mean loss in the total; an objective that is not named has 1."
    micro_batch: Annotated[int, OPERATIONAL] = Field(default=64, ge=1)
    "Number of samples of one stream in a forward pass of a worker."
    sharding: Annotated[Sharding, OPERATIONAL] = "none"
    "Keep a copy of the network on each worker (none), or 1/W of it on each of W workers (full)."
    compile: Annotated[bool, OPERATIONAL] = False
    "Compile the blocks with torch.compile: minutes at the start, faster steps on a GPU."
    activation_checkpointing: Annotated[Recomputing, OPERATIONAL] = "none"
    "Compute again in the backward: nothing, what costs little (selective), or every block (full)."

    evaluate_every: Annotated[int | None, OPERATIONAL] = Field(default=None, ge=1)
    "Steps between evaluations beside the training, if CPUs and GPUs are free; null makes none."

    @model_validator(mode="after")
    def _fresh_of_a_start(self) -> Self:
        if self.start_fresh and self.start_from is None:
            raise ValueError(f"start_fresh = {self.start_fresh} needs start_from; give the weights")
        return self

    @model_validator(mode="after")
    def _pixels_need_no_codes(self) -> Self:
        if self.network.image_target == "pixels" and self.codes == "online":
            raise ValueError(
                "network.image_target = pixels uses no codes; set codes to stored, which takes the "
                "stored views"
            )
        return self

    @model_validator(mode="after")
    def _some_patch_is_masked(self) -> Self:
        num_patches = self.network.config(vocab_size=1, num_codes=1).num_patches
        with_images = self.images_per_step or self.pairs_per_step
        if with_images and not num_masked_patches(num_patches, self.image_mask_ratio):
            raise ValueError(
                f"image_mask_ratio = {self.image_mask_ratio:g} masks none of the {num_patches} "
                "patches of an image, so nothing is learned from images; raise it"
            )
        return self

    @model_validator(mode="after")
    def _grid_is_masked(self) -> Self:
        config = self.network.config(vocab_size=1, num_codes=1)
        if config.grid > MAX_GRID:
            raise ValueError(
                f"network.image_size = {config.image_size} has {config.grid} x {config.grid} "
                f"patches, but masks are drawn on grids up to {MAX_GRID} x {MAX_GRID}; set "
                f"network.image_size = {MAX_GRID * config.patch_size}, or a larger patch_size"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_of_losses(self) -> Self:
        target = self.network.image_target or "codes"
        losses = objectives_of(target)
        names = [loss.name for loss in losses]
        for name, weight in self.loss_weights.items():
            if weight != 1 and name not in names:
                raise ValueError(
                    f"loss_weights.{name} = {weight:g} is of no loss with network.image_target = "
                    f"{target}; the losses are {', '.join(names)}"
                )
        in_batch = [loss.name for loss in losses if self.samples_per_step[loss.stream]]
        if in_batch and not any(self.loss_weights[name] for name in in_batch):
            raise ValueError(
                f"loss_weights of {', '.join(in_batch)} are 0, so nothing is trained; give one of "
                "them another weight"
            )
        return self

    @model_validator(mode="after")
    def _copies_sum_exactly(self) -> Self:
        if self.reduce_dtype == "bf16" and self.sharding == "none":
            raise ValueError("reduce_dtype = bf16 needs sharding = full; copies are summed in fp32")
        return self

    @model_validator(mode="after")
    def _float8_fits(self) -> Self:
        if not self.float8:
            return self
        for name, value, needed in (
            ("precision", self.precision, "bf16"),
            ("use_gpu", str(self.use_gpu).lower(), "true"),
        ):
            if value != needed:
                raise ValueError(f"float8 = true needs {name} = {needed}, not {value}")
        if fault := float8.misfit(self.network.config(vocab_size=1, num_codes=1)):
            raise ValueError(f"float8 = true: network.{fault}; change it, or set float8 to false")
        return self

    @model_validator(mode="after")
    def _substreams_divide_batches(self) -> Self:
        batches = {f"{stream}s_per_step": n for stream, n in self.samples_per_step.items()}
        self.check_substreams(**batches)
        return self

    def saves_after(self, step: int) -> bool:
        """Return whether a checkpoint is due after so many steps."""
        is_evaluated = self.evaluate_every is not None and step % self.evaluate_every == 0
        return is_evaluated or super().saves_after(step)

    @property
    def samples_per_step(self) -> dict[Stream, int]:
        """Number of samples of each stream in a step, over all workers."""
        return {
            "image": self.images_per_step,
            "text": self.texts_per_step,
            "pair": self.pairs_per_step,
        }

    def layout(self, num_workers: int) -> ParallelLayout:
        """Return how a step is distributed over so many workers."""
        largest = -(-max(self.samples_per_step.values()) // num_workers)
        return ParallelLayout(
            num_workers=num_workers,
            micro_batch=max(min(self.micro_batch, largest), 1),
            sharded=self.sharding == "full",
            precision=self.precision,
            activation_checkpointing=self.activation_checkpointing,
        )

    def sample_shapes(self, config: BEiT3Config, text_length: int) -> dict[Stream, SampleShape]:
        """Return the shape of a mean sample of each stream, for texts of ``text_length`` tokens."""
        return sample_shapes(
            config,
            text_length=text_length,
            caption_length=self.max_caption_length,
            image_mask_ratio=self.image_mask_ratio,
            text_mask_ratio=self.text_mask_ratio,
            pair_text_mask_ratio=self.pair_text_mask_ratio,
        )

    def spikes(self) -> Spikes | None:
        """Return what judges the losses, or None if no step is skipped for its loss."""
        return None if self.spike_factor is None else Spikes(self.spike_factor, self.spike_window)

    def feed_params(self) -> FeedParams:
        """Return the part of the parameters that the feed reads."""
        return FeedParams(**{name: getattr(self, name) for name in FeedParams.__dataclass_fields__})
