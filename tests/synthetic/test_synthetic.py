"""A miniature of the bundled set: same layouts, same rules, a few people."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hpl.files import HplError
from hpl.synthetic import synthesize
from hpl.synthetic.captions import PLAIN_CHANCES, RICH_CHANCES, describe, processed_tokens
from hpl.synthetic.people import LOOKALIKE_GROUP, draw_identity, draw_instance
from hpl.synthetic.render import Shot, render

MINIATURE = dict(
    seed=3, pretrain_people=6, pretrain_pictures=2, caption_train_people=8, caption_val_people=2,
    caption_test_people=5, caption_pictures=3, picture_train_people=6, picture_test_people=5, picture_pictures=8,
    num_cameras=4, same_side_overlap=2, cross_side_overlap=3, distractors=6, junk=4,
)  # fmt: skip
MARKET_NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d{2})\.jpg")
VOCABULARY = {  # words (regular expressions) that give away a part and occur in no phrase about another
    "hair": ("hair", "ponytail", "bun"),
    "hat": ("cap", "beanie", "hat"),
    "bottom": ("pants", "trousers", "slacks", "jeans", "denim", "shorts", "skirt", "leggings", "tights"),
    "shoes": ("shoes", "sneakers", "trainers", "footwear", "boots"),
    "bag": ("bag", "backpack", "back pack", "rucksack", "handbag", "purse", "suitcase", "trolley"),
    "umbrella": ("umbrella",),
    "phone": ("phone", "smartphone"),
    "bicycle": ("bicycle", "bike"),
    "logo": ("logo", "print", "design"),
    "inner": ("over a", "underneath"),
    "sleeves": ("with [a-z ]+ sleeves", "that has"),
    "hair_shape": ("ponytail", "bun"),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "raw"
    synthesize(root, SimpleNamespace(**MINIATURE), num_workers=1)
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(root: Path, folder: str = "CUHK-PEDES") -> list[dict]:
    return json.loads((root / folder / "reid_raw.json").read_text())


def known(root: Path, folder: str) -> dict[str, dict]:
    return json.loads((root / folder / "attributes.json").read_text())


def market(root: Path, folder: str) -> list[tuple[int, int]]:
    """(pid, camera) of each picture of a folder."""
    names = [MARKET_NAME.fullmatch(path.name) for path in sorted((root / "Market-1501" / folder).iterdir())]
    assert all(names)
    return [(int(name[1]), int(name[2])) for name in names]


def people(root: Path, folder: str, keep) -> set[int]:
    return {row["person"] for path, row in known(root, folder).items() if keep(path)}


def test_same_bytes_with_two_workers_and_over_existing_output(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "raw"
    (target / "stale").mkdir(parents=True)
    synthesize(target, SimpleNamespace(**MINIATURE), num_workers=2)
    assert digests(target) == digests(root)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert not (target / "stale").exists()


def test_another_seed_gives_other_pictures() -> None:
    first, second = (render(Shot(seed=seed, world="picture", person=1, index=0, camid=1)) for seed in (0, 1))
    assert first.image.tobytes() != second.image.tobytes()


def test_contradictory_counts_are_listed_together(tmp_path: Path) -> None:
    config = SimpleNamespace(**MINIATURE | {"num_cameras": 1, "same_side_overlap": 50})
    with pytest.raises(HplError, match="num_cameras.*picture_train_people.*caption_train_people"):
        synthesize(tmp_path / "raw", config, num_workers=1)
    assert list(tmp_path.iterdir()) == []


def test_caption_set_follows_cuhk_pedes(root: Path) -> None:
    rows = records(root)
    splits = {row["id"]: row["split"] for row in rows}
    assert list(splits) == list(range(1, 16))
    assert Counter(splits.values()) == {"train": 8, "val": 2, "test": 5}
    assert all(splits[row["id"]] == row["split"] for row in rows)
    paths = [row["file_path"] for row in rows]
    assert len(set(paths)) == len(paths)
    assert {f"imgs/{path}" for path in paths} == set(known(root, "CUHK-PEDES"))
    assert {Path(path).suffix for path in paths} == {".png", ".jpg"}
    assert 1 in Counter(row["id"] for row in rows).values()
    for row in rows:
        with Image.open(root / "CUHK-PEDES" / "imgs" / row["file_path"]) as image:
            assert image.mode == "RGB" and image.height > image.width
        assert row["processed_tokens"] == [processed_tokens(caption) for caption in row["captions"]]
        assert 2 <= len(row["captions"]) <= 3


def test_pretraining_set_is_one_split_of_other_people(root: Path) -> None:
    rows = records(root, "pretrain")
    assert len(rows) == 12 and {row["split"] for row in rows} == {"train"}
    assert all(len(row["captions"]) == 1 for row in rows)
    others = people(root, "CUHK-PEDES", bool) | people(root, "Market-1501", bool)
    assert not others & people(root, "pretrain", bool)


def test_captions_are_plain_english(root: Path) -> None:
    for row in records(root) + records(root, "pretrain"):
        for caption in row["captions"]:
            assert caption.isascii() and caption[0].isupper() and caption.endswith(".")
            assert "  " not in caption and "none" not in caption and "{" not in caption
            assert 5 <= len(caption.split()) <= 60


def test_captions_mention_only_what_is_visible(root: Path) -> None:
    for folder in ("CUHK-PEDES", "pretrain"):
        rows = known(root, folder)
        for row in records(root, folder):
            visible = rows[f"imgs/{row['file_path']}"]["visible"]
            for caption in row["captions"]:
                assert_only_visible(caption, visible)


@pytest.mark.parametrize("style", [RICH_CHANCES, PLAIN_CHANCES])
def test_grammar_mentions_only_what_is_visible(style) -> None:
    rng = np.random.default_rng(0)
    mentioned = Counter()
    for number in range(400):
        identity, instance = draw_identity(0, number), draw_instance(rng)
        truth = {
            "bag": instance.bag != "none", "umbrella": instance.umbrella_colour != "none", "phone": instance.phone,
            "bicycle": instance.bicycle_colour != "none", "hat": identity.hat != "none",
            "hair": identity.hair != "bald", "bottom": identity.bottom != "none",
            "logo": identity.top_pattern == "logo", "inner": identity.top_pattern == "inner",
            "sleeves": identity.top_pattern == "sleeves", "hair_shape": identity.hair in ("ponytail", "bun"),
            "top": True, "shoes": True,
        }  # fmt: skip
        visible = {part: bool(there and rng.random() < 0.6) for part, there in truth.items()}
        visible["hair"] |= visible["hair_shape"]
        caption = describe(identity, instance, visible, style, rng)
        assert_only_visible(caption, visible)
        mentioned.update(part for part in VOCABULARY if says(caption, part))
    assert set(mentioned) == set(VOCABULARY)


def says(caption: str, part: str) -> bool:
    return any(re.search(rf"\b{word}\b", caption.lower()) for word in VOCABULARY[part])


def assert_only_visible(caption: str, visible: dict[str, bool]) -> None:
    for part in VOCABULARY:
        assert visible[part] or not says(caption, part), (part, caption)


def test_picture_set_follows_market(root: Path) -> None:
    train, query, gallery = (market(root, folder) for folder in ("bounding_box_train", "query", "bounding_box_test"))
    assert len({pid for pid, _ in train}) == 6 and len({pid for pid, _ in query}) == 5
    assert not {pid for pid, _ in train} & {pid for pid, _ in query + gallery}
    assert all(pid > 1 for pid, _ in train + query)
    counts = Counter(pid for pid, _ in gallery)
    assert counts[0] == 6 and counts[-1] == 4
    assert set(counts) - {0, -1} == {pid for pid, _ in query}
    assert all(1 <= camera <= 4 for _, camera in train + query + gallery)
    assert len(set(query)) == len(query)
    for pid, camera in query:
        assert any(other == pid and elsewhere != camera for other, elsewhere in gallery)
    assert len(train) == 6 * 8 and len(query) + len(gallery) == 5 * 8 + 6 + 4


def test_overlaps_are_planted_as_asked(root: Path) -> None:
    split = {f"imgs/{row['file_path']}": row["split"] for row in records(root)}
    caption = {name: people(root, "CUHK-PEDES", lambda path, name=name: split[path] == name) for name in ("train", "val", "test")}
    train = people(root, "Market-1501", lambda path: path.startswith("bounding_box_train"))
    test = people(root, "Market-1501", lambda path: path.startswith("query"))
    assert len(caption["train"] & train) == 2
    assert len(caption["train"] & test) == 2
    assert len(caption["test"] & train) == 1
    assert not caption["test"] & test and not caption["val"] & (train | test)


def test_overlap_pictures_are_copies_of_market_pictures(root: Path) -> None:
    copies = [path for path in known(root, "CUHK-PEDES") if path.startswith("imgs/Market/")]
    assert len(copies) == 5 * 4
    originals = {hash_ for path, hash_ in digests(root / "Market-1501").items() if path.endswith(".jpg")}
    hashes = digests(root / "CUHK-PEDES")
    assert 0 < sum(hashes[path] in originals for path in copies) < len(copies)
    pictures = list(known(root, "Market-1501").values())
    for path in copies:
        row = known(root, "CUHK-PEDES")[path]
        assert row in pictures


def test_lookalikes_differ() -> None:
    group = [draw_identity(0, number) for number in range(LOOKALIKE_GROUP * 40)]
    assert len(set(group)) == len(group)


def test_what_hides_a_part_hides_it_from_the_flags() -> None:
    pictures = [render(Shot(seed=0, world="caption", person=number, index=0, camid=1)) for number in range(80)]
    assert all(not picture.visible["phone"] for picture in pictures if picture.instance.viewpoint == "back")
    cars = [picture for picture in pictures if picture.instance.occlusion == "car"]
    assert cars and not any(picture.visible["shoes"] for picture in cars)
    assert all(picture.visible["shoes"] for picture in pictures if picture.instance.occlusion == "none")
