"""Plan the worlds, render them in a pool, and write them in the layouts of the real data sets.

root/CUHK-PEDES   reid_raw.json, imgs/            captions, T2I
root/Market-1501  bounding_box_train/, query/, bounding_box_test/   pictures, I2I
root/pretrain     reid_raw.json, imgs/            plain captions of people who appear nowhere else
Beside each lies attributes.json: picture path (below the set's folder) -> person number in the synthetic
world, identity and instance attributes, place, and which parts are visible. Training does not read it.
"""

import io
import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hpl.config import Synthetic
from hpl.files import HplError, output_folder
from hpl.synthetic.captions import PLAIN_CHANCES, RICH_CHANCES, describe, processed_tokens
from hpl.synthetic.people import attributes
from hpl.synthetic.render import WORLDS, Picture, Shot, render
from hpl.workers import Duty, in_order

_SET_FOLDERS = {"caption": "CUHK-PEDES", "picture": "Market-1501", "pretrain": "pretrain"}
_NUM_CAPTION_CAMERAS, _NUM_PRETRAIN_CAMERAS = 12, 16
_COPIES_PER_OVERLAP = 4  # pictures of an overlap person that the caption set repeats
_SINGLE_EVERY = 100  # each so many caption people of a split, one has a single picture
_THIRD_CAPTION_RATE = 0.01
_PLAN_STREAM, _WORDS_STREAM, _COPY_STREAM = 4, 5, 6  # first words of seeds, apart from `WORLDS`
_SUBFOLDERS = ("CUHK01", "CUHK03", "cam_a", "cam_b", "{}_query", "{}_query", "CUHK03")
_TASK_PICTURES = 32  # pictures a worker takes at a time
_DRAWS = Duty("draws pictures", "num_workers")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to write: `path` lies below the root; a caption record also has an id and a split."""

    shot: Shot
    path: str
    copy: int | None = None  # None: the picture itself; else the number of this altered copy of it
    split: str | None = None
    pid: int = 0


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A person of a set with captions: number in the synthetic world, id and split in the set."""

    person: int
    pid: int
    split: str


def synthesize(root: Path, config: Synthetic, num_workers: int = 2) -> None:
    """Write the three sets under `root`, replacing what is there only once all is complete.

    The bytes depend on `config` alone, not on `num_workers`. A caller's script needs the usual
    `if __name__ == "__main__"`, since worker processes are spawned.

    Raises:
        HplError: the counts contradict one another; the message lists every contradiction.
    """
    _check(config)
    jobs = plan(config)
    with output_folder(root) as partial:
        for below in {Path(job.path).parent for job in jobs} | {Path(folder) for folder in _SET_FOLDERS.values()}:
            (partial / below).mkdir(parents=True, exist_ok=True)
        rows = _run(jobs, partial, num_workers)
        for folder in _SET_FOLDERS.values():
            done = [(job, row) for job, row in zip(jobs, rows) if job.path.startswith(f"{folder}/")]
            _write_annotations(partial / folder, done)


def plan(config: Synthetic) -> list[Job]:
    """List every file of the three sets, in the order of their annotations."""
    rng = np.random.default_rng([config.seed, _PLAN_STREAM])
    train_numbers = list(range(config.picture_train_people))
    test_numbers = list(range(len(train_numbers), len(train_numbers) + config.picture_test_people))
    cross_train, cross_test = _share_cross(config)
    picked_train = rng.permutation(train_numbers)[: config.same_side_overlap + cross_test].tolist()
    picked_test = rng.permutation(test_numbers)[:cross_train].tolist()
    picture_jobs = _plan_pictures(config, train_numbers, test_numbers, rng)
    first_new = len(train_numbers) + len(test_numbers) + config.distractors + config.junk
    caption_jobs, first_free = _plan_captions(
        config,
        overlaps={
            "train": picked_train[: config.same_side_overlap] + picked_test,
            "val": [],
            "test": picked_train[config.same_side_overlap :],
        },
        sources=picture_jobs,
        first_new=first_new,
        rng=rng,
    )
    return caption_jobs + picture_jobs + _plan_pretrain(config, first_free, rng)


def _share_cross(config: Synthetic) -> tuple[int, int]:
    """Count cross-side people whose captions lie in training (their pictures in the test split), and the reverse."""
    return config.cross_side_overlap - config.cross_side_overlap // 2, config.cross_side_overlap // 2


def _check(config: Synthetic) -> None:
    cross_train, cross_test = _share_cross(config)
    claims = {
        "num_cameras is at least 2": config.num_cameras >= 2,
        "picture_pictures is at least 4": config.picture_pictures >= _COPIES_PER_OVERLAP,
        "the overlaps fit picture_train_people": config.same_side_overlap + cross_test <= config.picture_train_people,
        "the overlaps fit picture_test_people": cross_train <= config.picture_test_people,
        "the overlaps fit caption_train_people": config.same_side_overlap + cross_train <= config.caption_train_people,
        "the overlaps fit caption_test_people": cross_test <= config.caption_test_people,
    }
    broken = [claim for claim, holds in claims.items() if not holds]
    if broken:
        raise HplError(f"synthetic: these must hold but do not: {'; '.join(broken)}")


def _plan_pictures(config: Synthetic, train: list[int], test: list[int], rng: np.random.Generator) -> list[Job]:
    """Plan Market-1501: pids are dealt at random to both sides; a test person gives one query a camera."""
    pids = (rng.permutation(len(train) + len(test)) + 2).tolist()
    jobs = []
    for number, pid in zip(train + test, pids):
        most = min(config.num_cameras, config.picture_pictures // 2)  # two pictures a camera: query and gallery
        count = int(rng.integers(min(4, most), most + 1))
        camids = (rng.permutation(config.num_cameras)[:count] + 1).tolist()
        for index in range(config.picture_pictures):
            camid = camids[index % count]
            folder = "bounding_box_train" if number < len(train) else "query" if index < count else "bounding_box_test"
            shot = Shot(seed=config.seed, world="picture", person=number, index=index, camid=camid)
            jobs.append(Job(shot=shot, path=_market_path(folder, f"{pid:04d}", camid, index, rng)))
    for index in range(config.distractors + config.junk):
        junk = index >= config.distractors
        subjects = ("fragment", "fragment", "background") if junk else ("person", "person", "fragment", "background")
        number = test[int(rng.integers(len(test)))] if junk and test else len(train) + len(test) + index
        camid = int(rng.integers(config.num_cameras)) + 1
        shot = Shot(
            seed=config.seed, world="picture", person=number, index=config.picture_pictures + index, camid=camid,
            subject=subjects[int(rng.integers(len(subjects)))],
        )  # fmt: skip
        jobs.append(Job(shot=shot, path=_market_path("bounding_box_test", "-1" if junk else "0000", camid, index, rng)))
    return sorted(jobs, key=lambda job: job.path)


def _plan_captions(
    config: Synthetic, overlaps: dict[str, list[int]], sources: list[Job], first_new: int, rng: np.random.Generator
) -> tuple[list[Job], int]:
    """Plan CUHK-PEDES: ids count from 1 through train, val and test. Also returns the first person number left over."""
    by_number: dict[int, list[Job]] = {}
    for job in sources:
        if "/0000_" not in job.path and "/-1_" not in job.path:
            by_number.setdefault(job.shot.person, []).append(job)
    counts = {"train": config.caption_train_people, "val": config.caption_val_people, "test": config.caption_test_people}
    jobs, pid, number, renamed = [], 0, first_new, iter(rng.permutation(9000).tolist())
    for split, people in counts.items():
        new = people - len(overlaps[split])
        singles = set(range(number, number + new, _SINGLE_EVERY)) if split == "train" else set()
        numbers = overlaps[split] + list(range(number, number + new))
        number += new
        for person in [numbers[index] for index in rng.permutation(len(numbers))]:
            pid += 1
            if person < first_new:
                jobs += _plan_copies(by_number[person], split, pid, next(renamed), rng)
            else:
                pictures = 1 if person in singles else config.caption_pictures
                jobs += _plan_person("caption", _Member(person=person, pid=pid, split=split), pictures, config.seed, rng)
    return jobs, number


def _plan_copies(sources: list[Job], split: str, pid: int, name: int, rng: np.random.Generator) -> list[Job]:
    picked = sorted(rng.permutation(len(sources))[:_COPIES_PER_OVERLAP].tolist())
    return [
        replace(sources[index], path=f"CUHK-PEDES/imgs/Market/{name:04d}_{copy}.jpg", copy=copy, split=split, pid=pid)
        for copy, index in enumerate(picked)
    ]


def _plan_person(world: str, who: _Member, pictures: int, seed: int, rng: np.random.Generator) -> list[Job]:
    num_cameras = _NUM_CAPTION_CAMERAS if world == "caption" else _NUM_PRETRAIN_CAMERAS
    subfolder = _SUBFOLDERS[int(rng.integers(len(_SUBFOLDERS)))].format("train" if who.split == "train" else "test")
    suffix = "png" if subfolder in ("CUHK01", "cam_a") else "jpg"
    if world == "pretrain":
        subfolder, suffix = f"part_{who.person % 10}", "jpg"
    jobs = []
    for index in range(pictures):
        camid = int(rng.integers(num_cameras)) + 1
        shot = Shot(seed=seed, world=world, person=who.person, index=index, camid=camid)
        path = f"{_SET_FOLDERS[world]}/imgs/{subfolder}/{who.pid:05d}_{index:02d}.{suffix}"
        jobs.append(Job(shot=shot, path=path, split=who.split, pid=who.pid))
    return jobs


def _plan_pretrain(config: Synthetic, first_new: int, rng: np.random.Generator) -> list[Job]:
    jobs = []
    for pid in range(1, config.pretrain_people + 1):
        who = _Member(person=first_new + pid - 1, pid=pid, split="train")
        jobs += _plan_person("pretrain", who, config.pretrain_pictures, config.seed, rng)
    return jobs


def _market_path(folder: str, pid: str, camid: int, index: int, rng: np.random.Generator) -> str:
    """Make a name in Market-1501's manner; `index`, the picture's number among those of its pid, keeps it unique."""
    sequence, frame, box = rng.integers(1, 7), 100 * index + rng.integers(1, 100), rng.integers(1, 7)
    return f"Market-1501/{folder}/{pid}_c{camid}s{sequence}_{frame:06d}_{box:02d}.jpg"


def _run(jobs: list[Job], folder: Path, num_workers: int) -> list[dict]:
    """Do every job, in order, and collect what each reports."""
    chunks = [jobs[start : start + _TASK_PICTURES] for start in range(0, len(jobs), _TASK_PICTURES)]
    do, workers = partial(_do_all, folder), min(num_workers, len(chunks))
    done = map(do, chunks) if workers <= 1 else in_order(do, chunks, workers, _DRAWS, "spawn")
    return list(tqdm(chain.from_iterable(done), total=len(jobs), desc="synthesize", unit="picture", mininterval=2))


def _do_all(folder: Path, jobs: list[Job]) -> list[dict]:
    return [_do(job, folder) for job in jobs]


def _do(job: Job, folder: Path) -> dict:
    """Write one picture; return its attributes and, for a picture with an id and a split, its captions."""
    picture = render(job.shot)
    (folder / job.path).write_bytes(_encode(job, picture))
    row = {"person": job.shot.person, "camera": job.shot.camid, "place": picture.place, "visible": picture.visible}
    if picture.identity and picture.instance:
        row |= attributes(picture.identity, picture.instance)
    else:
        row |= {"person": None, "identity": None, "instance": None}
    if job.split:
        row["captions"] = _captions(job, picture)
    return row


def _encode(job: Job, picture: Picture) -> bytes:
    suffix = Path(job.path).suffix
    data = _save(picture.image, suffix, picture.quality)
    if job.copy is None:
        return data
    rng = np.random.default_rng([job.shot.seed, _COPY_STREAM, job.shot.person, job.copy])
    if rng.random() < 0.25:
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if rng.random() < 0.6:
        scale = rng.uniform(0.8, 2.0)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return _save(image, suffix, int(rng.integers(55, 95)))


def _save(image: Image.Image, suffix: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _captions(job: Job, picture: Picture) -> list[str]:
    shot = job.shot
    rng = np.random.default_rng([shot.seed, _WORDS_STREAM, WORLDS[shot.world], shot.person, shot.index])
    plain = shot.world == "pretrain"
    count = 1 if plain else 3 if rng.random() < _THIRD_CAPTION_RATE else 2
    chances = PLAIN_CHANCES if plain else RICH_CHANCES
    assert picture.identity and picture.instance  # no captions are asked of a picture without a person
    return [describe(picture.identity, picture.instance, picture.visible, chances, rng) for _ in range(count)]


def _write_annotations(folder: Path, done: list[tuple[Job, dict]]) -> None:
    """Write attributes.json for any set, reid_raw.json for one with captions."""
    below = {str(Path(job.path).relative_to(folder.name)): row for job, row in done}
    known = {path: {key: value for key, value in row.items() if key != "captions"} for path, row in below.items()}
    (folder / "attributes.json").write_text(json.dumps(known, sort_keys=True, indent=0) + "\n")
    records = [
        {
            "id": job.pid,
            "split": job.split,
            "file_path": str(Path(job.path).relative_to(f"{folder.name}/imgs")),
            "captions": row["captions"],
            "processed_tokens": [processed_tokens(caption) for caption in row["captions"]],
        }
        for job, row in done
        if job.split
    ]
    if records:
        (folder / "reid_raw.json").write_text(json.dumps(records, indent=0) + "\n")
