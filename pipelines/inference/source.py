"""What a model is loaded from: the folder of an export, a workdir, a file, or a name on the hub.

========  ==================================================================================
export    a folder that a stage ``export`` or ``PretrainedModel.save_pretrained`` wrote
workdir   of a pretraining or a fine-tuning: the export of its newest training
training  a checkpoint or the output of ``pretrain``
file      weights in the official layout or this project's; it has no text tokenizer
hub       ``owner/name`` or ``owner/name@revision``, which holds an export
========  ==================================================================================
"""

from dataclasses import replace
from pathlib import Path

from model.finetuning.released import ENCODER_PREFIX
from model.network.layouts import refuse_values
from model.network.pretrained import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    NotAModel,
    located,
    one_line,
    why_not,
)
from orchestration.checkpoint_files import RAY_TRAIN, is_checkpoint_name
from orchestration.errors import PipelineError
from orchestration.manifest import MANIFEST
from orchestration.params import is_uri
from orchestration.plan import WORKFLOWS, latest_record
from orchestration.storage.store import Store
from pipelines.finetune.start_source import STAGE as FINE_TUNING
from pipelines.finetune.start_source import labels_of
from pipelines.finetune.task_file import TASK_FILE, read_task
from pipelines.inference.parts import Source
from pipelines.inference.released_files import read_model_file
from pipelines.pretrain.export import CARD_FILE
from pipelines.pretrain.start_source import EXPORT, TRAINING, is_folder, open_folder
from tokenizer.text import TextTokenizer


def open_source(
    location: str | Path, tokenizer: str | Path | None = None, labels: str | Path | None = None
) -> Source:
    """Read the parts of a model.

    Args:
        location: see above.
        tokenizer: SentencePiece model of weights that do not come with theirs.
        labels: file of the labels of a head that is in a file alone; a folder has its own.

    Raises:
        NotAModel: there is none, it is not whole, or it is another program's.
    """
    name = str(location)
    try:
        if not (is_uri(name) and is_folder(name)):
            name = str(located(name))
        if is_folder(name) and labels is not None:
            raise NotAModel(
                f"{name}: it has its own labels; leave out labels=, or --labels of a command"
            )
        found = _of_folder(name) if is_folder(name) else read_model_file(Path(name), labels)
        return replace(found, text_tokenizer=_vocabulary(found, tokenizer))
    except NotAModel:
        raise
    except (PipelineError, ValueError, OSError) as error:
        raise NotAModel(one_line(name, error)) from None


def _of_folder(name: str) -> Source:
    store = Store(export_of(name))
    is_export = store.exists(NETWORK_FILE) or store.exists(WEIGHTS_FILE)
    if store.is_local and is_export and not is_checkpoint_name(store.name):
        path = Path(store.native_path(""))
        if words := why_not(path):
            raise NotAModel(f"{path}: {words}")
    try:
        folder = open_folder(store.uri)
    except PipelineError as error:
        of_this_project = any(store.exists(each) for each in (WORKFLOWS, RAY_TRAIN, MANIFEST))
        words = why_not(Path(name)) if store.is_local and not of_this_project else None
        raise NotAModel(f"{name}: {words}" if words else str(error)) from None
    state = folder.weights()
    refuse_values(state)
    is_fine_tuned = any(each.startswith(ENCODER_PREFIX) for each in state)
    if folder.kind == EXPORT and folder.store.exists(TASK_FILE) and not is_fine_tuned:
        raise NotAModel(
            f"{name}: weights of a pretraining beside the {TASK_FILE} of a fine-tuning; copy the "
            "whole folder of either"
        )
    if is_fine_tuned and not (folder.kind == EXPORT and folder.store.exists(TASK_FILE)):
        raise NotAModel(
            f"{name}: weights of a fine-tuned network without its {TASK_FILE}; name the whole "
            "folder that the stage export wrote"
        )
    found = Source(
        name,
        folder.config(),
        state,
        text_tokenizer=folder.text_tokenizer(),
        image_tokenizer=folder.image_tokenizer(),
        card=_text(folder.store, CARD_FILE),
    )
    described = _text(folder.store, TASK_FILE)
    if not is_fine_tuned or described is None:
        return found
    task, metrics = read_task(described.encode(), folder.store.fetch)
    return replace(found, task=task, labels=tuple(labels_of(folder) or ()), metrics=metrics)


def _vocabulary(found: Source, given: str | Path | None) -> Path | None:
    """Return the text tokenizer, given or found.

    Raises:
        ValueError: it is not that of the weights.
    """
    path = found.text_tokenizer if given is None else Path(given).expanduser()
    if path is None:
        return None
    num_rows = TextTokenizer.load(path).num_rows
    if num_rows != found.config.vocab_size:
        raise ValueError(
            f"{path} needs {num_rows} rows of the token embedding, the weights have "
            f"{found.config.vocab_size}; name the vocabulary of the weights: "
            "tokenizer=PATH, or --tokenizer PATH of a command"
        )
    return path


def _text(store: Store, name: str) -> str | None:
    try:
        return store.read(name).decode() if store.exists(name) else None
    except UnicodeDecodeError:
        raise NotAModel(
            f"{store.uri_of(name)} is not UTF-8 text; copy the whole folder again"
        ) from None


def export_of(location: str) -> str:
    """Return the folder of the export of a workdir's newest training; any other location as is.

    Other workflows may have run there since, such as `beit3 embed`.

    Raises:
        NotAModel: the training is a fine-tuning that is not complete.
    """
    store = Store(location)
    if not store.exists(WORKFLOWS):
        return location
    stages = (latest_record(store, {EXPORT, TRAINING, FINE_TUNING}) or {"stages": {}})["stages"]
    output = store.sub(f"{EXPORT}/{stages.get(EXPORT)}")
    if output.exists(MANIFEST):
        return output.sub(EXPORT).uri
    if FINE_TUNING in stages:
        raise NotAModel(
            f"{location}: the fine-tuning has no export yet; run it to its end, or name another "
            "model"
        )
    return location
