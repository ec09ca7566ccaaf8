"""A TorchScript program, as the archives that hold one are made."""

import warnings

import torch
from torch import nn


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, torch.zeros(1, 2))
