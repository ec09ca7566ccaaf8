"""Headers of remote safetensors files, written by the format's own program and damaged."""

import json

import pytest
import torch
from safetensors.torch import save

from pipelines.tokens.given_weights import safetensors_shapes


def file_of(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def test_shapes_are_those_that_safetensors_wrote():
    data = save({"a": torch.zeros(2, 3), "b": torch.zeros(())}, {"made": "by a test"})
    shapes = safetensors_shapes(data)
    assert shapes is not None
    assert {name: each.shape for name, each in shapes.items()} == {"a": (2, 3), "b": ()}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        json.dumps({"a": {"shape": ["x", None]}}).encode(),
        json.dumps({"a": {"shape": 3}}).encode(),
        json.dumps({"a": {}}).encode(),
        json.dumps({"a": []}).encode(),
        b'{"a": {"shape": [1.5]}}',
        b"{\xff}",
    ],
)
def test_a_damaged_header_gives_no_shapes(header):
    assert safetensors_shapes(file_of(header)) is None
    assert safetensors_shapes(file_of(header)[:-1]) is None
