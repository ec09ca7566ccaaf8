"""Modules that read sizes or tokenize text must not import torch: it takes seconds."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "from model import BEiT3Config",
        "from model.network.config import SIZES",
        "from tokenizer import TextTokenizer",
        "from tokenizer.packing import pack",
    ],
)
def test_it_does_not_import_torch(statement):
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_of_a_lazy_package_is_an_attribute_error():
    import model
    import tokenizer

    for package in (model, tokenizer):
        with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
            _ = package.Nothing
