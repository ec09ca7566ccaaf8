"""The bytes of the weights of a fine-tuning, as far as a plan knows them."""

from model import BEiT3Config
from model.training.cost import parameters_by_part
from pipelines.finetune.start import StartParams, configuration_of


def weight_bytes(params: StartParams) -> int:
    """Return the bytes of the network's weights; of an unknown network those of the base size."""
    config = configuration_of(params) or BEiT3Config.named(
        "base", vocab_size=64_010, num_codes=8192
    )
    return 4 * sum(parameters_by_part(config).values())
