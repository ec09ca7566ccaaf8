"""Comparison of a pretraining's export with programs that read it: torchscale, timm, transformers.

Each program is built as its users build it, reads its file strictly, and must give the result of
this project's network for the same random inputs. torchscale is built as the authors' classes build
it: with sub-LayerNorm, unless the export says otherwise, and with their text position table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.network.interop import OFFICIAL_TEXT_ROWS, from_official
from model.network.weight_files import read_weights
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.export import CARD_FILE, TIMM_FOLDER, VQKD_FILE, WEIGHTS_FILE
from pipelines.pretrain.foreign_configs import official_file, torchscale_arguments
from pipelines.tokens.text_tokenizer import MODEL_FILE as OWN_FILE
from tokenizer.text import BOS, EOS, FILE_NAME, TextTokenizer
from tokenizer.vqkd import VQKD

_TOLERANCE: Final = 1e-4
"Largest difference of a hidden state, relative to the largest hidden state if that is above 1."
_TEXTS: Final = (
    "",
    "Two dogs play in the snow.",
    "a  red   circle, left of 3 blue squares (2024)!",
    "caf\u00e9, na\u00efve; \u6771\u4eac",
    "x" * 300,
)
_HEADS: Final = ("mlm_head.weight", "mlm_head.bias", "mim_head.weight", "mim_head.bias")
_PROGRAMS: Final = {
    "torchscale": "pip install --no-deps torchscale fairscale",
    "timm": "pip install timm",
    "transformers": "pip install transformers",
}


@dataclass(frozen=True)
class Finding:
    """The result of one comparison."""

    file: str
    program: str
    ok: bool
    details: str


class CheckFailed(Exception):
    """A program does not read its file, or computes something else."""


def check_export(folder: Path) -> Iterator[Finding]:
    """Yield a finding for each file of an export.

    Raises:
        FileNotFoundError: the folder is not an export.
    """
    if not (folder / NETWORK_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has no {NETWORK_FILE}; give the folder that the stage export wrote"
        )
    config = BEiT3Config.from_json((folder / NETWORK_FILE).read_text())
    network = BEiT3(config).eval()

    def load_weights() -> str:
        network.load_state_dict(read_weights(folder / WEIGHTS_FILE))
        return f"{sum(p.numel() for p in network.parameters()):,} parameters"

    own = finding_of(WEIGHTS_FILE, "model.BEiT3", load_weights)
    yield own
    if own.ok:
        file = official_file(config)
        yield finding_of(file, "torchscale", lambda: check_torchscale(folder / file, network))
        yield finding_of(TIMM_FOLDER, "timm", lambda: _check_timm(folder / TIMM_FOLDER, network))
    yield check_text_tokenizer(folder, config)
    if (folder / VQKD_FILE).is_file() or _lists(folder / CARD_FILE, VQKD_FILE):
        yield finding_of(
            VQKD_FILE, "tokenizer.VQKD", lambda: _check_vqkd(folder / VQKD_FILE, config)
        )


def _lists(card: Path, name: str) -> bool:
    """Return whether a model card lists a file, which codes of another tokenizer leave out."""
    return not card.is_file() or f"`{name}`" in card.read_text()


def check_text_tokenizer(folder: Path, config: BEiT3Config) -> Finding:
    """Compare an export's text tokenizer with transformers, or load one that only we read."""
    if (folder / OWN_FILE).is_file():  # of which transformers would give other ids
        path = folder / OWN_FILE
        return finding_of(path.name, "tokenizer.text", lambda: _load_tokenizer(path, config)[1])
    return finding_of(FILE_NAME, "transformers", lambda: _check_tokenizer(folder, config))


def finding_of(file: str, program: str, check: Callable[[], str]) -> Finding:
    """Run a check; whatever a program raises over a damaged file is the finding."""
    try:
        return Finding(file, program, True, check())
    except ModuleNotFoundError as error:
        remedy = _PROGRAMS.get(program, f"pip install {error.name}")
        return Finding(file, program, False, f"not checked: {error.name} is missing; {remedy}")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines[:3]) or type(error).__name__
        return Finding(file, program, False, reason[:500])


def check_torchscale(path: Path, network: BEiT3, heads: Sequence[str] = _HEADS) -> str:
    """Compare an encoder with torchscale's, which reads a file in the official layout.

    Args:
        path: the file.
        network: with the weights that the file should hold.
        heads: tensors of heads of pretraining that the file must have, too.

    Returns:
        the differences in words.

    Raises:
        CheckFailed: tensors or hidden states differ; others if torchscale does not read the file.
    """
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3 as Torchscale

    config = network.config
    state = read_weights(path)
    theirs = Torchscale(EncoderConfig(**torchscale_arguments(config))).eval()
    theirs.load_state_dict(
        {n.removeprefix("beit3."): t for n, t in state.items() if n.startswith("beit3.")}
    )
    _compare_tensors(from_official(state), network.state_dict(), heads)
    generator = torch.Generator().manual_seed(0)
    images, ids = _random_images(config, generator), _random_ids(config, generator)
    kinds = ["images", "texts"] + ([] if config.fusion_layers else ["pairs"])
    differences = {}
    for kind in kinds:
        pixels, words = images if kind != "texts" else None, ids if kind != "images" else None
        with torch.inference_mode():
            expected = network(images=pixels, text_ids=words).hidden
            found = theirs(visual_tokens=pixels, textual_tokens=words)["encoder_out"]
        differences[kind] = _difference(kind, found, expected)
    if config.fusion_layers:
        return f"{_shown(differences)}; pairs differ: no fusion experts"
    return _shown(differences)


def _compare_tensors(
    found: dict[str, Tensor], ours: dict[str, Tensor], heads: Sequence[str]
) -> None:
    """Compare the tensors that both layouts have: random inputs reach few rows of an embedding.

    A shared attention is not among them; the hidden states show it.
    """
    for name in heads:
        if name not in found:
            raise CheckFailed(f"{name} is missing")
    for name in found.keys() & ours.keys():
        rows = len(ours[name]) if name == "language.positions" else None
        if not torch.equal(found[name][:rows], ours[name][: len(found[name])]):
            raise CheckFailed(f"{name} differs from {WEIGHTS_FILE}")


def _check_timm(folder: Path, network: BEiT3) -> str:
    import timm
    from timm.data import resolve_model_data_config

    config = network.config
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = resolve_model_data_config(theirs)
    expected = {
        "mean": config.pixel_mean,
        "std": config.pixel_std,
        "input_size": (3, config.image_size, config.image_size),
    }
    for name, value in expected.items():
        if tuple(settings[name]) != tuple(value):
            raise CheckFailed(f"its {name} is {settings[name]}, the network's is {value}")
    images = _random_images(config, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden = network(images=images).hidden
        tokens, pooled = theirs.forward_features(images), theirs(images)
    return _shown({
        "tokens": _difference("tokens", tokens, hidden),
        "class token": _difference("class token", pooled, hidden[:, 0]),
    })  # fmt: skip


def _load_tokenizer(path: Path, config: BEiT3Config) -> tuple[TextTokenizer, str]:
    text = TextTokenizer.load(path)
    if text.num_rows != config.vocab_size:
        raise CheckFailed(
            f"it needs {text.num_rows} rows of the token embedding, the network has "
            f"{config.vocab_size}"
        )
    return text, f"{text.num_rows} rows of the token embedding"


def _check_tokenizer(folder: Path, config: BEiT3Config) -> str:
    text, _ = _load_tokenizer(folder / FILE_NAME, config)
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(folder)
    for line in _TEXTS:
        found, expected = theirs(line)["input_ids"], [BOS, *text.encode(line), EOS]
        if found != expected:
            raise CheckFailed(f"ids of {line!r} are {found[:8]}…, ours are {expected[:8]}…")
    if theirs.mask_token_id != text.mask:
        raise CheckFailed(f"the id of the mask is {theirs.mask_token_id}, ours is {text.mask}")
    return f"equal ids of {len(_TEXTS)} texts"


def _check_vqkd(path: Path, config: BEiT3Config) -> str:
    tokenizer = VQKD.load(path)
    found = (tokenizer.config.grid**2, tokenizer.config.num_codes)
    if found != (config.num_patches, config.num_codes):
        raise CheckFailed(
            f"{found[0]} patches and {found[1]} codes, the network has {config.num_patches} and "
            f"{config.num_codes}"
        )
    return f"{found[0]} patches, {found[1]} codes"


def _random_images(config: BEiT3Config, generator: torch.Generator) -> Tensor:
    return torch.randn(1, 3, config.image_size, config.image_size, generator=generator)


def _random_ids(config: BEiT3Config, generator: torch.Generator) -> Tensor:
    """Return a text of the greatest length that both programs can take."""
    length = min(config.max_text_length, OFFICIAL_TEXT_ROWS - 2)
    return torch.randint(0, config.vocab_size, (1, length), generator=generator)


def _difference(kind: str, found: Tensor, expected: Tensor) -> float:
    """Return the largest difference; one above the tolerance fails the check."""
    if found.shape != expected.shape:
        raise CheckFailed(f"{kind}: shape {tuple(found.shape)}, ours {tuple(expected.shape)}")
    largest = float((found - expected).abs().max())
    if not largest <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        cosine = float(torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0))
        raise CheckFailed(f"{kind} differ by up to {largest:.2g} (cosine {cosine:.3f})")
    return largest


def _shown(differences: dict[str, float]) -> str:
    return "largest difference: " + ", ".join(f"{n} {d:.1g}" for n, d in differences.items())
