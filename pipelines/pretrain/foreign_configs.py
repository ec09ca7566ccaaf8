"""Arguments and configuration files with which timm, transformers and torchscale read an export."""

from typing import Any

from model import BEiT3Config
from model.network.interop import same_in_official_classes
from tokenizer.text import BOS, EOS, PAD, UNK, TextTokenizer


def official_file(config: BEiT3Config) -> str:
    """Return the name of the file in the official layout.

    Only what the authors' classes compute equally is named official; anything else they would
    load with warnings and compute otherwise.
    """
    return "official.pt" if same_in_official_classes(config) else "torchscale.pt"


def torchscale_arguments(config: BEiT3Config) -> dict[str, Any]:
    """Return the arguments of torchscale's ``EncoderConfig``.

    The authors' classes pass all of them but ``subln``, whose default is true, and leave
    ``max_source_positions``, the rows of the text position table, at its default.
    """
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "vocab_size": config.vocab_size,
        "encoder_embed_dim": config.width,
        "encoder_attention_heads": config.num_heads,
        "encoder_layers": config.depth,
        "encoder_ffn_embed_dim": config.ffn_width,
        "multiway": True,
        "normalize_output": config.final_norm,
        "no_output_layer": True,
    } | ({} if config.subln else {"subln": False})


def timm_config(config: BEiT3Config) -> dict[str, Any]:
    """Return the ``config.json`` of a folder that ``timm.create_model("local-dir:…")`` reads.

    It holds the arguments of the model and the preprocessing: timm's own ``beit3_*`` names mean
    ImageNet's mean and standard deviation, at which the features are wrong.
    """
    return {
        "architecture": "beit3_base_patch16_224",
        "num_classes": 0,
        "num_features": config.width,
        "global_pool": "token",
        "model_args": {
            "img_size": config.image_size,
            "patch_size": config.patch_size,
            "embed_dim": config.width,
            "depth": config.depth,
            "num_heads": config.num_heads,
            # timm rounds ratio times width down; half a unit keeps the product above ffn_width.
            "mlp_ratio": (config.ffn_width + 0.5) / config.width,
            "scale_attn_norm": config.subln,
            "scale_mlp_norm": config.subln,
            "final_norm": config.final_norm,
            "num_classes": 0,
            "global_pool": "token",
        },
        "pretrained_cfg": {
            "input_size": [3, config.image_size, config.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": config.pixel_mean,
            "std": config.pixel_std,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def tokenizer_config(text: TextTokenizer, max_length: int) -> dict[str, Any]:
    """Return ``tokenizer_config.json``, by which transformers' ``AutoTokenizer`` finds the class.

    Args:
        text: the text tokenizer.
        max_length: longest text of the network in tokens.
    """
    return {
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": max_length,
        "bos_token": text.piece(BOS),
        "cls_token": text.piece(BOS),
        "eos_token": text.piece(EOS),
        "sep_token": text.piece(EOS),
        "pad_token": text.piece(PAD),
        "unk_token": text.piece(UNK),
        "mask_token": text.piece(text.mask),
    }
