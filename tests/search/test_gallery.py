"""A gallery follows its pictures, forgets what was deleted, and survives whatever kills it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpl.evaluation.composition import composed_scores
from hpl.files import HplError
from hpl.search.gallery import Gallery
from tests.support.imports import ROOT
from tests.support.small_model import draw_pictures, save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def gallery(tmp_path: Path, model: Path) -> Gallery:
    draw_pictures(tmp_path / "crops", 20)
    made = Gallery.create(tmp_path / "gallery", model)
    made.add(tmp_path / "crops", camera_pattern=r"c(\d)_")
    return made


def counts(changes) -> tuple:
    return changes.added, changes.changed, changes.unchanged, changes.removed, len(changes.bad)


def test_add_encodes_what_is_new_or_changed_and_drops_what_is_gone(gallery: Gallery, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    assert counts(gallery.add(crops, camera_pattern=r"c(\d)_")) == (0, 0, 20, 0, 0)
    files = sorted(crops.iterdir())
    files[0].unlink()
    shutil.copy(files[2], files[1])
    os.utime(files[3])
    files[4].write_bytes(b"no picture")
    draw_pictures(crops / "more", 2, first=50)
    changes = gallery.add(crops, camera_pattern=r"c(\d)_")
    assert counts(changes) == (2, 1, 17, 2, 1) and str(files[4]) in changes.bad[0]
    assert len(gallery) == 20 and gallery.verify() == []
    found = gallery.search(pictures=[files[2]], k=2)
    assert {each.path for each in found} == {str(files[1]), str(files[2])} and found[1].score > 0.999


def test_a_table_tells_camera_time_track_and_more(model: Path, tmp_path: Path) -> None:
    files = draw_pictures(tmp_path / "crops", 4)
    rows = [f"crops/{file.name},{n},2026-11-25T0{n}:00,t{n},shop {n % 2}" for n, file in enumerate(files)]
    table = tmp_path / "crops.csv"
    table.write_text("path,camera,time,track,place\n" + "\n".join(rows) + "\n")
    gallery = Gallery.create(tmp_path / "gallery", model)
    gallery.add(table)

    def paths(**filters) -> list[int]:
        return sorted(each.id for each in gallery.search(text="a man", **filters))

    assert paths(cameras=["1", "2"]) == [2, 3] and paths(where={"place": "shop 1"}) == [2, 4]
    assert paths(after="2026-11-25T01:00Z", before="2026-11-25T03:00+01:00") == [2, 3]
    assert paths(where={"track": "t3"}) == [4] and paths(pictures=[files[0]], other_cameras=True) == [2, 3, 4]
    assert gallery.values("place") == ["shop 0", "shop 1"] and gallery.columns() == ["place"]
    assert gallery.picture(2).time == "2026-11-25T01:00:00Z"
    table.write_text(table.read_text().replace("shop 1", "hall"))
    assert counts(gallery.add(table)) == (0, 0, 4, 0, 0) and paths(where={"place": "hall"}) == [2, 4]
    with pytest.raises(HplError, match="'size': not in the gallery; expected one of camera, track, place"):
        paths(where={"size": "1"})


def test_sentence_and_picture_together_score_as_evaluation_does(gallery: Gallery) -> None:
    vectors = [np.concatenate([gallery.store.vectors(n, task) for n in gallery.store.segments()]) for task in ("t2i", "i2i")]
    t2i, i2i = (each.astype(np.float64) for each in vectors)
    text = gallery.model.encode_texts(["a man in red"])[0]
    mixed = 0.3 * text + 0.7 * t2i[4]
    wanted = composed_scores(t2i @ (mixed / np.linalg.norm(mixed)), i2i @ i2i[4])
    found = gallery.search(text="a man in red", pictures=[5], weight=0.3)
    assert [each.id for each in found] == (np.argsort(-wanted) + 1).tolist()
    np.testing.assert_allclose([each.score for each in found], np.sort(wanted)[::-1], atol=2e-3)


def test_what_it_should_not_be_goes_down(gallery: Gallery) -> None:
    first = gallery.search(pictures=[5], k=20)
    unlike = gallery.search(pictures=[5], against_pictures=[first[1].id], aversion=1.0, k=20)
    assert [each.id for each in unlike].index(first[1].id) > 1
    assert "no calibrated probability" in unlike.note and "no calibration" in first.note


def test_deleted_means_gone(gallery: Gallery, tmp_path: Path) -> None:
    gone = gallery.picture(5)
    vector = gallery.store.vectors(1, "i2i")[4].tobytes()
    assert gallery.remove([gone.path]) == 1
    assert 5 not in [each.id for each in gallery.search(text="a man", k=50)] and gallery.status()["deleted_in_bytes"] == 1

    def in_bytes(pattern: bytes) -> bool:
        return any(pattern in path.read_bytes() for path in (tmp_path / "gallery").rglob("*") if path.is_file())

    assert in_bytes(vector) and not in_bytes(os.path.basename(gone.path).encode())
    before = [(each.id, each.score) for each in gallery.search(text="a man", k=50)]
    assert gallery.compact() == 1 and not in_bytes(vector) and gallery.verify() == []
    assert [(each.id, each.score) for each in gallery.search(text="a man", k=50)] == before
    assert gallery.remove(older_than=3600) == 0 and gallery.remove(older_than=-1) == 19
    with pytest.raises(HplError, match="empty gallery"):
        gallery.search(text="a man")


def test_verify_sees_a_changed_byte_and_a_stray(gallery: Gallery) -> None:
    file = gallery.store.file(1, "t2i")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (file.parent / "00009.t2i.f16.npy.tmp").write_bytes(b"")
    faults = gallery.verify()
    assert len(faults) == 2 and "does not name" in faults[0] and "not as it was written" in faults[1]


def test_one_writer_at_a_time(gallery: Gallery, tmp_path: Path) -> None:
    other = Gallery.open(tmp_path / "gallery")
    with gallery.store.writing(), pytest.raises(HplError, match="index in use"):
        other.remove([1])
    assert other.remove([1]) == 1 and len(gallery.search(text="a man", k=50)) == 19  # the first sees what the other did


def test_another_model_is_refused_with_the_way_out(gallery: Gallery, tmp_path: Path) -> None:
    other = save_small_model(tmp_path / "other", noise=2.0)
    with pytest.raises(HplError, match="hpl index upgrade"):
        Gallery.open(tmp_path / "gallery", other)
    new = gallery.upgrade(tmp_path / "new", other)
    assert len(new) == 20 and new.picture(3).camera == gallery.picture(3).camera
    assert counts(new.add(tmp_path / "crops", camera_pattern=r"c(\d)_")) == (0, 0, 20, 0, 0)


def test_a_full_disk_loses_nothing(gallery: Gallery, tmp_path: Path, monkeypatch) -> None:
    draw_pictures(tmp_path / "crops", 3, first=30)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(HplError, match="no space left"):
        patched.setattr(np, "save", full)
        gallery.add(tmp_path / "crops")
    assert len(gallery) == 20
    assert counts(gallery.add(tmp_path / "crops"))[:2] == (3, 0) and gallery.verify() == []


_WORK = """
import sys
from hpl.search import gallery
gallery._BATCH, gallery._SEGMENT_PICTURES = 2, 4
opened = gallery.Gallery.open(sys.argv[1])
opened.model.encode_texts(["a man"])
print("ready", flush=True)
while True:
    opened.add(sys.argv[2])
    print("added", flush=True)
    opened.compact()
    opened.remove([number for (number,) in opened.store.all("SELECT id FROM pictures WHERE id % 3 = 0")])
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_and_doubles_nothing(gallery: Gallery, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "crops", 20, first=20)
    moments, num_rounds = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _WORK, str(tmp_path / "gallery"), str(tmp_path / "crops")], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        num_rounds += process.stdout.read().count(b"added")
        process.wait()
        reopened = Gallery.open(tmp_path / "gallery")
        with reopened.store.writing():
            pass
        assert reopened.verify() == []
        paths = [path for (path,) in reopened.store.all("SELECT path FROM pictures")]
        assert len(paths) == len(set(paths))
    assert num_rounds  # so kills struck every step
    changes = reopened.add(tmp_path / "crops")
    assert len(reopened) == 40 and changes.removed == 0
    for number, path in reopened.store.all("SELECT id, path FROM pictures WHERE id % 5 = 0"):
        best = reopened.search(pictures=[path], k=1)[0]
        assert best.id == number and best.score > 0.999  # each record has the vector of its own picture


@pytest.mark.parametrize("step", ["segment", "commit", "unlink"])
def test_a_kill_at_each_step_of_compact_leaves_the_last_good_state(gallery: Gallery, monkeypatch, step: str) -> None:
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    gallery.remove([1, 2])
    before = [(each.id, each.score) for each in gallery.search(text="a man", k=50)]
    target = {"segment": "_write_segment", "commit": "transaction", "unlink": "clear_strays"}[step]
    with monkeypatch.context() as patched, gallery.store.writing(), pytest.raises(Killed):
        patched.setattr(gallery.store, target, kill)
        gallery.store.compact()
    assert [(each.id, each.score) for each in gallery.search(text="a man", k=50)] == before
    gallery.compact()
    assert gallery.verify() == [] and [(each.id, each.score) for each in gallery.search(text="a man", k=50)] == before


def test_a_damaged_catalogue_is_one_line(gallery: Gallery, tmp_path: Path) -> None:
    gallery.store.connection.close()
    (tmp_path / "gallery" / "catalogue.sqlite").write_bytes(b"nothing" * 1000)
    with pytest.raises(HplError, match="catalogue.sqlite"):
        Gallery.open(tmp_path / "gallery")
