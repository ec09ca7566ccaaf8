"""A model → the folder that the stages ``export`` write, by their own code."""

from pathlib import Path

from model import BEiT3
from model.finetuning.task_networks import TaskNetwork
from model.network.pretrained import made_folder
from pipelines.finetune import export as of_a_fine_tuning
from pipelines.inference.parts import Source
from pipelines.pretrain import export as of_a_pretraining
from pipelines.pretrain.provenance import Provenance


def save(folder: str | Path, source: Source, network: BEiT3 | TaskNetwork) -> None:
    """Write a model.

    Args:
        folder: does not exist yet, or is empty.
        source: the parts of the model.
        network: its network, whose weights are written.

    Raises:
        OSError: the folder has files, a file stands in its place, or it cannot be written.
    """
    folder = made_folder(folder)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} has files; name an empty or a new folder")
    if source.task is None:
        assert isinstance(network, BEiT3)
        of_a_pretraining.write_export(
            folder,
            network,
            vocabulary=source.text_tokenizer,
            codebook=source.image_tokenizer,
            evaluation={},
            made=Provenance(),
        )
    else:
        assert source.text_tokenizer is not None
        of_a_fine_tuning.write_export(
            folder,
            source.task,
            {name: tensor.cpu() for name, tensor in network.state_dict().items()},
            source.config,
            labels=source.labels,
            vocabulary=source.text_tokenizer,
            metrics=source.metrics,
            published={},
            made=Provenance(),
        )
    if source.card is not None:
        (folder / of_a_pretraining.CARD_FILE).write_text(source.card)
