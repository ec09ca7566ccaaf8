"""The rules of curation: parameters, reasons, and their order."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from dataprep.near_duplicates import Tolerance
from orchestration.params import OPERATIONAL, StageParams

REASONS: Final = (
    "evaluation_image",
    "placeholder",
    "caption_length",
    "small_original",
    "aspect",
    "duplicate",
    "near_duplicate",
)
"An image for which several reasons hold is dropped for the first of these."
KEPT: Final = len(REASONS)
"Verdict of a row that is kept; any other verdict is the index of its reason."


class Params(StageParams):
    """Rules for keeping images and captions."""

    min_placeholder_captions: int = Field(default=3, ge=2)
    "Smallest number of different captions, and of addresses, that makes an original a placeholder."
    min_caption_words: int = Field(default=1, ge=1)
    "Smallest number of words of a caption; a pair needs one caption that fits."
    max_caption_words: int = Field(default=256, ge=1)
    "Largest number of words of a caption."
    merge_near_duplicate_captions: bool = True
    "Add captions of near duplicates to the image that is kept; those of duplicates always are."
    max_merged_captions: int = Field(default=256, ge=0, le=10_000)
    "Largest number of captions that an image receives from its duplicates and near duplicates."
    min_original_side: int = Field(default=0, ge=0)
    "Smallest length in pixels of an original's shorter side."
    max_aspect_ratio: float = Field(default=10, ge=1)
    "Largest ratio of an original's longer side to its shorter side."
    max_hash_distance: int | None = Field(default=6, ge=0, le=12)
    "Largest Hamming distance of two near duplicates' perceptual hashes; null keeps them."
    max_color_difference: int = Field(default=20, ge=0, le=255)
    "Largest color difference (0-255) of two near duplicates in any grid cell and channel."
    max_aspect_difference: float = Field(default=0.1, ge=0)
    "Largest relative difference of two near duplicates' aspect ratios."
    max_detail_difference: float = Field(default=0.3, ge=0)
    "Largest difference of two near duplicates' 16 by 16 gray grids, relative to their contrast."
    slice_rows: int = Field(default=262_144, ge=1)
    "Number of images in a slice."
    partition_rows: Annotated[int, OPERATIONAL] = Field(default=500_000, ge=1)
    "Number of images that a task compares at once; fewer need less memory."

    @model_validator(mode="after")
    def _a_caption_can_fit(self) -> Self:
        if self.min_caption_words > self.max_caption_words:
            raise ValueError(
                f"min_caption_words = {self.min_caption_words} is greater than max_caption_words = "
                f"{self.max_caption_words}: no caption fits"
            )
        return self

    def tolerance(self) -> Tolerance:
        """Return the largest differences of near duplicates, which must be searched for."""
        assert self.max_hash_distance is not None
        return Tolerance(
            self.max_hash_distance,
            self.max_color_difference,
            self.max_aspect_difference,
            self.max_detail_difference,
        )
