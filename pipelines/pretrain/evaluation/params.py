"""Parameters of an evaluation."""

from pydantic import Field

from orchestration.actor_params import ActorParams


class Params(ActorParams):
    """What is measured, and with which resources."""

    max_rows: int = Field(default=4096, ge=1)
    "Largest number of held-out rows of each stream to evaluate."
    num_neighbors: int = Field(default=10, ge=1)
    "Number of nearest neighbors that vote for a label (k)."
    max_bank_images: int = Field(default=20_000, ge=1)
    "Largest number of labeled training images for nearest neighbors and the linear probe."
    max_tuning_rows: int = Field(default=4096, ge=1)
    "Largest number of training texts for linear probes, and of training pairs for linear heads."
    max_likelihood_pairs: int = Field(default=64, ge=0)
    "Largest number n of held-out pairs in retrieval by likelihood, which costs n x n predictions."
    batch_size: int = Field(default=64, ge=3)
    "Number of rows in a forward pass."
