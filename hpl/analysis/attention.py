"""Where in a picture the two class tokens look: Grad-CAM of both on the same picture (paper Fig. 4).

Shapes: B pictures; D joint width; X tokens, of which the last N are patches; C width of the image tower.
Source: Selvaraju et al., Grad-CAM, ICCV 2017. In a ViT the patches that leave the last block do not reach the class tokens, so
the maps are taken from the tokens that enter its attention.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hpl.backbones.encoding import normalise
from hpl.backbones.towers import ImageTower
from hpl.manifests.tables import Manifests
from hpl.pictures import read_pictures
from hpl.retrieval.features import Extractor
from hpl.retrieval.sets import RetrievalSet, read_test_sets
from hpl.runtime.checkpoint import NOTHING_KEPT
from hpl.tasks import I2I, T2I

NUM_EXPLAINED = 6  # pictures


def grad_cam(tower: ImageTower, images_B3HW: Tensor, texts_BD: Tensor, partners_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the maps of v_t2i for cos(v_t2i, text) and of v_i2i for cos(v_i2i, partner), float32, B x rows x columns each.

    At least 0, and at most 1 where anything speaks for the similarity; all 0 where nothing does. The tower is left as it was.
    """
    visual, kept = tower.visual, []

    def keep(module: torch.nn.Module, inputs: tuple, tokens_BXC: Tensor) -> Tensor:
        kept.append(tokens_BXC.detach().requires_grad_())
        return kept[-1]

    hook = visual.transformer.resblocks[-1].ln_1.register_forward_hook(keep)
    with torch.enable_grad():
        classes_B2D = tower(images_B3HW)[:, :2]
        hook.remove()
        grid = [
            (side - kernel) // stride + 1
            for side, kernel, stride in zip(images_B3HW.shape[2:], visual.conv1.kernel_size, visual.conv1.stride, strict=True)
        ]
        maps = []
        for token, wanted_BD in enumerate((texts_BD, partners_BD)):
            similarity = cosine_similarity(classes_B2D[:, token], wanted_BD).sum()
            (slope_BXC,) = torch.autograd.grad(similarity, kept, retain_graph=True)
            patches_BNC, slope_BNC = (part[:, -grid[0] * grid[1] :].detach().float() for part in (kept[0], slope_BXC))
            map_BN = (patches_BNC * slope_BNC.mean(dim=1, keepdim=True)).sum(dim=2).relu()
            highest_B1 = map_BN.amax(dim=1, keepdim=True)
            maps.append((map_BN / highest_B1.where(highest_B1 > 0, 1)).unflatten(1, grid))
    return maps[0], maps[1]


def explain(extractor: Extractor, tables: Manifests, count: int = NUM_EXPLAINED) -> dict[str, np.ndarray]:
    """Draw the maps of both tasks for some captioned pictures of the first T2I set's test split, chosen by rule.

    Of the people with a captioned and another picture, `count` are taken, evenly spaced by name; of each the first captioned
    picture with its first caption, and as the partner in cos(v_i2i, v_i2i) the next picture of the person.

    Args:
        extractor: batch size and flip play no part.

    Returns:
        image_id, caption_id and partner_image_id, int64; t2i and i2i, float32, a map each. No row if no set is scored for T2I.
    """
    chosen = _choose(next((each for each in read_test_sets(tables) if T2I in each.tasks), None), count)
    ids = {name: chosen[name].to_numpy(np.int64) for name in ("image_id", "caption_id", "partner_image_id")}
    if not len(chosen):
        return {**ids, T2I.name: np.zeros((0, 1, 1), np.float32), I2I.name: np.zeros((0, 1, 1), np.float32)}
    files, partners = (tables.files(tables.images.loc[ids[name]]) for name in ("image_id", "partner_image_id"))
    plain = replace(extractor, batch_size=len(chosen), flip=False, checkpoint=NOTHING_KEPT)
    texts_BD = plain.captions(chosen["caption"].tolist())
    _, partners_BD = plain.pictures(partners)
    pixels = read_pictures(files, extractor.size.height, extractor.size.width)
    pixels_B3HW = normalise(torch.from_numpy(pixels).to(extractor.device))
    maps = grad_cam(extractor.images, pixels_B3HW, texts_BD.to(extractor.device), partners_BD.to(extractor.device))
    return {**ids, **{task.name: map_BRC.cpu().numpy() for task, map_BRC in zip((T2I, I2I), maps, strict=True)}}


def _choose(test: RetrievalSet | None, count: int) -> pd.DataFrame:
    """Choose the captions that `explain` takes, with partner_image_id; no row without a test set."""
    rows = []
    if test:
        captions, pictures = (t.sort_values("image_id", kind="stable").groupby("pid") for t in (test.captions, test.images))
        first, ids = captions.head(1), pictures["image_id"].unique()
        pixels = test.images.set_index("image_id")["sha256"]
        paired = first[first["pid"].map(pictures["sha256"].nunique()) > 1]
        for row in paired.iloc[np.linspace(0, len(paired) - 1, min(count, len(paired))).round().astype(int)].to_dict("records"):
            others = [other for other in ids[row["pid"]] if pixels[other] != pixels[row["image_id"]]]
            rows.append({**row, "partner_image_id": next((other for other in others if other > row["image_id"]), others[0])})
    return pd.DataFrame(rows, columns=["image_id", "caption_id", "partner_image_id", "caption"])
