"""Gradients of the contrastive loss for batches whose activations do not fit in memory.

The loss compares all features of a batch, so its backward would need the activations of all
samples at once. Instead, all features are computed without activations, the loss gives the
gradient of each feature, and each chunk is encoded once more to carry its features' gradient on.
The sum over the chunks is the gradient of the whole batch. Each chunk must be encoded the same
both times: stochastic depth is an argument of the encoder and has no state.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.finetuning.contrastive import contrastive_loss

Encode = Callable[[], tuple[Tensor, Tensor]]
"Encodes one chunk: features of its images and of its texts, (b, D) each."


def backward_in_chunks(
    chunks: Sequence[Encode],
    logit_scale: Tensor,
    before_backward: Callable[[bool], None] = lambda _: None,
) -> Tensor:
    """Add the gradient of the contrastive loss to all parameters; return this worker's loss.

    Args:
        chunks: encoders of the chunks of this worker's batch; of several each is called twice.
        logit_scale: scalar parameter, logarithm of the factor of the scores.
        before_backward: is called before each backward through the network, with whether it is
            the last one; see ``model.training.parallel.before_backward``.
    """
    if len(chunks) == 1:  # its activations fit
        before_backward(True)
        found = chunks[0]()
        dtype = torch.promote_types(found[0].dtype, torch.float32)
        loss = contrastive_loss(found[0].to(dtype), found[1].to(dtype), logit_scale)
        loss.backward()
        return loss.detach()
    with torch.no_grad():
        encoded = [encode() for encode in chunks]
    dtype = torch.promote_types(encoded[0][0].dtype, torch.float32)
    images, texts = (
        torch.cat([pair[i] for pair in encoded]).to(dtype).requires_grad_() for i in range(2)
    )
    loss = contrastive_loss(images, texts, logit_scale)
    loss.backward()
    assert images.grad is not None and texts.grad is not None
    sizes = [len(pair[0]) for pair in encoded]
    gradients = zip(images.grad.split(sizes), texts.grad.split(sizes), strict=True)
    for number, (encode, gradient) in enumerate(zip(chunks, gradients, strict=True), start=1):
        before_backward(number == len(chunks))
        features = encode()
        torch.autograd.backward(
            features, [g.to(f.dtype) for g, f in zip(gradient, features, strict=True)]
        )
    return loss.detach()
