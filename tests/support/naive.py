"""The method a second time, in float64 loops: one picture, token, head and pair at a time, from METHOD.md and the published CLIP.

It reads the weights of the modules it is compared with, and calls none of their code: no hpl function, no torch.nn module, no
mask. Tensors here are float64; a sequence of tokens is a list of vectors.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# CLIP's vocabulary: begin, "a", "photo", "of", "and", "person", ".", end
BEGIN, A, PHOTO, OF, AND, PERSON, STOP, END = 49406, 320, 1125, 539, 537, 2533, 269, 49407
MARGIN_OF_LOG = 1e-8  # METHOD, L_sdm


# losses


def norm(vector: Tensor) -> Tensor:
    return vector.square().sum().sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (norm(a) * norm(b))


def mean(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms) / len(terms)


def cross_entropy(logits: Sequence[Tensor], label: int, smoothing: float = 0.0) -> Tensor:
    total = sum(torch.exp(logit) for logit in logits)
    log_probabilities = [logit - torch.log(total) for logit in logits]
    return -(1 - smoothing) * log_probabilities[label] - smoothing * sum(log_probabilities) / len(log_probabilities)


def sdm(images: Sequence[Tensor], texts: Sequence[Tensor], pids: Sequence[int], temperature: float) -> Tensor:
    """L_sdm of eq. 2: KL divergence of the softmax from the normalised same-identity matrix, in both directions."""
    total = 0.0
    for queries, keys in ((texts, images), (images, texts)):
        for query, pid in zip(queries, pids, strict=True):
            logits = [cosine(query, key) / temperature for key in keys]
            num_positives = sum(pid == other for other in pids)
            for j, other in enumerate(pids):
                log_p = -cross_entropy(logits, j)
                total = total + log_p.exp() * (log_p - math.log((pid == other) / num_positives + MARGIN_OF_LOG)) / len(pids)
    return total


def identity_t2i(image_logits: Sequence[Tensor], text_logits: Sequence[Tensor], labels: Sequence[int]) -> Tensor:
    """L_id_t2i of eq. 2."""
    both = [
        mean([cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]) for rows in (image_logits, text_logits)
    ]
    return mean(both)


def identity_i2i(logits: Sequence[Tensor], labels: Sequence[int], smoothing: float) -> Tensor:
    """L_id_i2i of eq. 2."""
    return mean([cross_entropy(row, label, smoothing) for row, label in zip(logits, labels, strict=True)])


def triplet(images: Sequence[Tensor], pids: Sequence[int], margin: float) -> Tensor:
    """L_tri of eq. 2: farthest positive and nearest negative of each picture that has both."""
    terms = []
    for i, pid in enumerate(pids):
        positives = [norm(images[i] - images[j]) for j, other in enumerate(pids) if other == pid and j != i]
        negatives = [norm(images[i] - images[j]) for j, other in enumerate(pids) if other != pid]
        if positives and negatives:
            terms.append(torch.clamp(max(positives) - min(negatives) + margin, min=0))
    return mean(terms)


def prompt_contrast(anchors: Sequence[Tensor], others: Sequence[Tensor], pids: Sequence[int], temperature: float) -> Tensor:
    """Eq. 8 with prompts as anchors and pictures as others, eq. 9 the other way round; one prompt for each sample of the
    batch."""
    terms = []
    for anchor, pid in zip(anchors, pids, strict=True):
        logits = [cosine(anchor, other) / temperature for other in others]
        terms.append(mean([cross_entropy(logits, j) for j, other in enumerate(pids) if other == pid]))
    return mean(terms)


def identity_prompt_loss(images: Sequence[Tensor], table: Sequence[Tensor], labels: Sequence[int], temperature: float) -> Tensor:
    """Eq. 11, over all rows of the table."""
    rows = [[cosine(image, prompt) / temperature for prompt in table] for image in images]
    return mean([cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)])


def squared_distance(left: Sequence[Tensor], right: Sequence[Tensor], normalized: bool) -> Tensor:
    """Mean of |left - right|^2: the summands of eqs. 6 and 10."""
    if normalized:
        left, right = [a / norm(a) for a in left], [b / norm(b) for b in right]
    return mean([sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in zip(left, right, strict=True)])


def frobenius(texts: Sequence[Tensor], images: Sequence[Tensor]) -> Tensor:
    """Eq. 12: the squared Frobenius norm of P_t - P_v, entry by entry."""
    return mean(
        [sum((t[k, w] - v[k, w]) ** 2 for k in range(t.shape[0]) for w in range(t.shape[1])) for t, v in zip(texts, images)]
    )


# forward passes


def layer_norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    centred = x - x.sum() / len(x)
    return centred / (centred.square().sum() / len(x) + module.eps).sqrt() * module.weight + module.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(tokens: list[Tensor], module: nn.MultiheadAttention, sees: Callable[[int, int], bool]) -> list[Tensor]:
    width = len(tokens[0])
    size = width // module.num_heads
    queries, keys, values = (
        [
            module.in_proj_weight[n * width : (n + 1) * width] @ x + module.in_proj_bias[n * width : (n + 1) * width]
            for x in tokens
        ]
        for n in range(3)
    )
    outputs = []
    for i, query in enumerate(queries):
        visible = [j for j in range(len(tokens)) if sees(i, j)]
        heads = []
        for start in range(0, width, size):
            part = slice(start, start + size)
            weights = [torch.exp((query[part] * keys[j][part]).sum() / math.sqrt(size)) for j in visible]
            heads.append(sum(weight * values[j][part] for weight, j in zip(weights, visible, strict=True)) / sum(weights))
        outputs.append(module.out_proj.weight @ torch.cat(heads) + module.out_proj.bias)
    return outputs


def transform(tokens: list[Tensor], blocks: Sequence[nn.Module], sees: Callable[[int, int], bool]) -> list[Tensor]:
    """Pre-norm transformer blocks: open_clip's, or torch's encoder layers. Token i attends to the tokens j with sees(i, j)."""
    for block in blocks:
        if isinstance(block, nn.TransformerEncoderLayer):
            first, attend, second, widen, narrow = block.norm1, block.self_attn, block.norm2, block.linear1, block.linear2
        else:
            first, attend, second, widen, narrow = block.ln_1, block.attn, block.ln_2, block.mlp.c_fc, block.mlp.c_proj
        mixed = attention([layer_norm(x, first) for x in tokens], attend, sees)
        tokens = [x + y for x, y in zip(tokens, mixed, strict=True)]
        hidden = [gelu(widen.weight @ layer_norm(x, second) + widen.bias) for x in tokens]
        tokens = [x + narrow.weight @ h + narrow.bias for x, h in zip(tokens, hidden, strict=True)]
    return tokens


def image_tokens(tower: nn.Module, image: Tensor, sees: Callable[[int, int], bool] = lambda i, j: True) -> list[Tensor]:
    """F_v of one picture (eq. 1): v_t2i, v_i2i, patches from left to right and from top to bottom."""
    visual, size = tower.visual, tower.visual.conv1.kernel_size[0]
    tokens = [visual.class_embedding + visual.positional_embedding[0]]
    if tower.task_routing:
        tokens.append(tower.i2i_token + tower.i2i_position)
    place = 0
    for top in range(0, image.shape[1], size):
        for left in range(0, image.shape[2], size):
            place += 1
            patch = (visual.conv1.weight * image[:, top : top + size, left : left + size]).flatten(1).sum(1)
            tokens.append(patch + visual.positional_embedding[place])
    tokens = transform([layer_norm(x, visual.ln_pre) for x in tokens], visual.transformer.resblocks, sees)
    tokens = [visual.proj.T @ layer_norm(x, visual.ln_post) for x in tokens]
    return tokens if tower.task_routing else [tokens[0], *tokens]


def text_tokens(tower: nn.Module, embeddings: list[Tensor]) -> list[Tensor]:
    """Token embeddings through a text tower; each token sees itself and what stands before it."""
    tokens = [x + tower.positional_embedding[place] for place, x in enumerate(embeddings)]
    tokens = transform(tokens, tower.transformer.resblocks, lambda i, j: j <= i)
    return [tower.text_projection.T @ layer_norm(x, tower.ln_final) for x in tokens]


def caption_tokens(tower: nn.Module, ids: Sequence[int]) -> list[Tensor]:
    """F_t of one caption, up to its end-of-text: the last is t_eos."""
    ids = list(ids)[: list(ids).index(END) + 1]
    return text_tokens(tower, [tower.token_embedding.weight[i] for i in ids])


def invert(network: nn.Module, tokens: list[Tensor]) -> Tensor:
    """P_v or P_t of one picture or caption (eq. 4), K x W: its tokens after the K queries, all seeing all."""
    count = len(network.queries)
    out = transform([*network.queries, *tokens], network.blocks, lambda i, j: True)[:count]
    return torch.stack([network.output.weight @ layer_norm(x, network.norm) + network.output.bias for x in out])


def read_prompt(tower: nn.Module, pieces: list[int | Tensor]) -> Tensor:
    """What M~_t makes of word ids and matrices of vectors in a row: the token at end-of-text."""
    embeddings = []
    for piece in pieces:
        embeddings += [tower.token_embedding.weight[piece]] if isinstance(piece, int) else list(piece)
    return text_tokens(tower, embeddings)[-1]


def instance_prompt(tower: nn.Module, identity: Tensor, instance: Tensor) -> Tensor:
    """`A photo of [id-tokens] and [inst-tokens] person.` (eqs. 3 and 5)."""
    return read_prompt(tower, [BEGIN, A, PHOTO, OF, identity, AND, instance, PERSON, STOP, END])


def identity_prompt(tower: nn.Module, identity: Tensor) -> Tensor:
    """`A photo of [id-tokens] person.` (eq. 7)."""
    return read_prompt(tower, [BEGIN, A, PHOTO, OF, identity, PERSON, STOP, END])


def assert_same_gradients(actual: nn.Module, reference: nn.Module, share: float = 1e-4) -> None:
    """Same gradient of each parameter, to `share` of its largest entry; a parameter without one has none in the reference
    either."""
    for (name, left), (_, right) in zip(actual.named_parameters(), reference.named_parameters(), strict=True):
        if left.grad is None or right.grad is None:
            missing = [part.grad for part in (left, right) if part.grad is not None]
            assert not any(grad.abs().sum() > 0 for grad in missing), f"{name}: a gradient on one side alone"
            continue
        scale = float(right.grad.abs().max())
        assert scale > 0, f"{name}: the reference gradient is zero"
        torch.testing.assert_close(
            left.grad.double(), right.grad, rtol=share, atol=share * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
