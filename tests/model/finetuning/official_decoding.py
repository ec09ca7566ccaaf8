"""The authors' caption decoding restated on torchscale's encoder, for the tests.

It follows ``eval_batch`` of their captioning handler and the forward of ``BEiT3ForCaptioning``
(github.com/microsoft/unilm, beit3): all beams hold the image, keys and values are concatenated and
reordered, and hypotheses are kept as in early versions of transformers. Tokens that no caption
holds get a score of minus infinity after the normalization.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model import BEiT3Config
from tests.model.networks import official_arguments

BOS, EOS = 0, 2


class OfficialCaptioner:
    """torchscale's encoder with the head of captioning."""

    def __init__(self, official: dict[str, Tensor], config: BEiT3Config, mask_id: int) -> None:
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3 as Encoder

        self.encoder = Encoder(EncoderConfig(**official_arguments(config))).eval()
        body = {n.removeprefix("beit3."): t for n, t in official.items() if "beit3." in n}
        self.encoder.load_state_dict(body, strict=True)
        self.weight, self.bias = official["mlm_head.weight"], official["mlm_head.bias"]
        self.num_layers, self.image_length = config.depth, 1 + config.num_patches
        self.mask_id = mask_id

    def scores(
        self,
        images: Tensor | None,
        ids: Tensor,
        text_length: int,
        state: dict | None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """(rows, T, V) of the given tokens; ``text_length`` is that of the whole text."""
        length = self.image_length + text_length
        allowed = torch.zeros(length, length)
        allowed[:, : self.image_length] = 1
        allowed[self.image_length :, self.image_length :] = torch.ones(
            text_length, text_length
        ).tril()
        mask, positions = 1 - allowed, None
        if state is not None:
            for layer in range(self.num_layers):
                state.setdefault(layer, {})
        if images is None:
            mask = mask[-2:]
            positions = torch.arange(text_length, ids.shape[1] + text_length)[None]
        hidden = self.encoder(
            textual_tokens=ids,
            visual_tokens=images,
            text_padding_position=padding,
            attn_mask=mask.masked_fill(mask == 1, -1e8),
            incremental_state=state,
            positions=positions,
        )["encoder_out"]
        text = hidden if images is None else hidden[:, self.image_length :]
        return F.linear(text, self.weight, self.bias)

    @torch.no_grad()
    def generate(
        self, images: Tensor, num_beams: int, max_len: int, length_penalty: float
    ) -> list[tuple[list[int], float]]:
        """Return the ids and the score of each image's best caption."""
        batch, length = len(images), 2
        rows = batch * num_beams
        ids = torch.tensor([[BOS, self.mask_id]]).repeat(rows, 1)
        results = torch.full((rows, max_len), self.mask_id)
        results[:, 0] = BOS
        repeated = images.repeat_interleave(num_beams, dim=0)
        sums = torch.zeros(batch, num_beams)
        sums[:, 1:] = -1e9
        sums, state = sums.view(-1), {}
        kept = [_Hypotheses(max_len, length_penalty) for _ in range(batch)]
        done = [False] * batch
        while length <= max_len:
            given = repeated if length == 2 else None
            scores = F.log_softmax(self.scores(given, ids, length, state)[:, 1], dim=-1)
            scores[:, [0, 1]] = -1e8
            scores[:, self.mask_id :] = -1e8
            num_tokens = scores.shape[1]
            total = (scores + sums[:, None]).view(batch, -1)
            best, where = total.topk(3 * num_beams, dim=1)
            chosen: list[tuple[float, int, int]] = []
            for image in range(batch):
                done[image] = done[image] or kept[image].is_done(best[image].max().item())
                of_image: list[tuple[float, int, int]] = []
                for index, score in zip(where[image].tolist(), best[image].tolist(), strict=True):
                    if done[image] or len(of_image) == num_beams:
                        break
                    row, word = image * num_beams + index // num_tokens, index % num_tokens
                    if word == EOS or length + 1 == max_len:
                        kept[image].add(results[row, :length].tolist(), score)
                    else:
                        of_image.append((score, word, row))
                chosen += of_image or [(0.0, 1, 0)] * num_beams
            sums = torch.tensor([each[0] for each in chosen])
            words = torch.tensor([each[1] for each in chosen])
            order = torch.tensor([each[2] for each in chosen])
            results = results[order]
            for layer in state.values():
                for key in layer:
                    layer[key] = layer[key][order][:, :, :-1]
            ids = torch.stack([words, torch.full_like(words, self.mask_id)], dim=1)
            results[:, length - 1] = words
            length += 1
            if all(done) or length == max_len:
                break
        return [(hypotheses.ids[1:-1], hypotheses.score) for hypotheses in kept]


class _Hypotheses:
    """The best ended caption of an image."""

    def __init__(self, max_len: int, length_penalty: float) -> None:
        self.max_length, self.length_penalty = max_len - 1, length_penalty
        self.score, self.ids = -float("inf"), list[int]()

    def add(self, ids: list[int], total: float) -> None:
        """``ids`` ends with the [MASK] in whose place ``</s>`` is."""
        score = total / len(ids) ** self.length_penalty
        if score > self.score:
            self.score, self.ids = score, ids

    def is_done(self, best: float) -> bool:
        return bool(self.ids) and self.score >= best / self.max_length**self.length_penalty
