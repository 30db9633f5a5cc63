"""Feature extraction reads files in batches and loses nothing at the seams."""

from pathlib import Path

import torch
from open_clip.model import CLIP
from PIL import Image

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, at_end
from hpl.config import Input
from hpl.pictures import read_pictures
from hpl.retrieval.features import Extractor
from tests.support.pictures import picture, save

SIZE = Input(height=24, width=12, context_length=32)


def extractor(clip: CLIP, **options: bool) -> Extractor:
    images = ImageTower(clip, task_routing=True, i2i_token_noise=0.5)
    return Extractor(images=images, texts=TextTower(clip), size=SIZE, batch_size=2, device=torch.device("cpu"), **options)


def test_pictures_in_batches_are_pictures_at_once(clip: CLIP, tmp_path: Path) -> None:
    files = [save(picture(number), tmp_path / f"{number}.png") for number in range(5)]
    towers = extractor(clip)
    t2i, i2i = towers.pictures(files)
    with torch.no_grad():
        expected = towers.images(normalise(torch.from_numpy(read_pictures(files, 24, 12))))
    torch.testing.assert_close(t2i, expected[:, 0])
    torch.testing.assert_close(i2i, expected[:, 1])


def test_captions_in_batches_are_captions_at_once(clip: CLIP) -> None:
    captions = ["A man.", "A woman with a long black coat walks past the shop.", "A child in red."]
    towers = extractor(clip)
    features = towers.captions(captions)
    with torch.no_grad():
        torch.testing.assert_close(features, at_end(*towers.texts(tokenize(captions, 32))))


def test_flipped_twins_have_the_same_features(clip: CLIP, tmp_path: Path) -> None:
    image = picture(0, (12, 24))
    files = [save(image, tmp_path / "a.png"), save(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), tmp_path / "b.png")]
    alone, both = (extractor(clip, flip=flip).pictures(files) for flip in (False, True))
    for one, two in zip(alone, both):
        assert not torch.allclose(one[0], one[1])
        torch.testing.assert_close(two, one.mean(dim=0).expand_as(two))
