"""Validation and the choice of an epoch: by the validation split alone, the first of equals, and early stopping."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import load_params
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import validate
from hpl.retrieval.sets import read_validation_sets
from hpl.tasks import I2I, T2I
from hpl.training.selection import Best
from tests.support.native_sets import CUHK, build
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE

BOTH = ["t2i", "i2i"]


def model_of(value: float) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1, bias=False)
    model.load_state_dict({"weight": torch.tensor([[value]])})
    return model


def test_the_best_epoch_is_chosen_by_the_mean_of_the_trained_tasks_and_the_first_of_equals_stays() -> None:
    best = Best("best", 2, BOTH)
    model = model_of(0.0)
    for epoch, (t2i, i2i) in enumerate([(10, 30), (30, 20), (10, 40), (0, 48)], start=1):
        assert not best.waited_enough()
        model.load_state_dict({"weight": torch.tensor([[float(epoch)]])})
        best.offer(epoch, {"t2i": t2i, "i2i": i2i}, model)
    assert best.restore(model).weight.item() == 2.0
    assert best.account(4) == {"rule": "best", "epoch": 2, "best_validated_epoch": 2, "mean_validation_mAP": 25.0}
    assert best.waited_enough()


def test_a_task_that_is_not_trained_has_no_say() -> None:
    best = Best("best", 0, ["t2i"])
    best.offer(1, {"t2i": 20.0, "i2i": 0.0}, model_of(1.0))
    best.offer(2, {"t2i": 10.0, "i2i": 90.0}, model_of(2.0))
    assert best.epoch == 1 and not best.waited_enough()


def test_the_last_epoch_stays_the_model_unless_asked_otherwise() -> None:
    best = Best("last", 0, BOTH)
    assert best.account(3) == {"rule": "last", "epoch": 3}
    best.offer(1, {"t2i": 20.0}, model_of(1.0))
    assert best.restore(model_of(7.0)).weight.item() == 7.0 and best.account(3)["epoch"] == 3


def test_patience_counts_up_to_the_last_measurement() -> None:
    """Measured every fifth epoch with a patience of three: the sixth epoch is not yet two without a better one."""
    best = Best("last", 3, BOTH)
    for epoch, figure in ((5, 20.0), (10, 30.0), (15, 30.0)):
        assert not best.waited_enough()
        best.offer(epoch, dict.fromkeys(BOTH, figure), model_of(0.0))
    assert best.waited_enough() and best.epoch == 10


def test_what_was_kept_goes_on() -> None:
    first, second = Best("best", 0, BOTH), Best("best", 0, BOTH)
    first.offer(1, {"t2i": 20.0, "i2i": 20.0}, model_of(1.0))
    second.load_state_dict(first.state_dict())
    second.offer(2, {"t2i": 19.0, "i2i": 20.0}, model_of(2.0))
    assert second.restore(model_of(7.0)).weight.item() == 1.0


@pytest.mark.parametrize("change", ["selection=best", "patience=2"])
def test_selection_without_validation_is_refused_by_the_parameters(change: str) -> None:
    changes = ["profiles.bundled.train.validate_epochs=0", f"profiles.bundled.train.{change}"]
    with pytest.raises(HplError, match="needs validation figures; expected validate_epochs >= 1"):
        load_params(Path(__file__).parents[2] / "params.yaml", changes)


def test_validation_measures_validation_people_alone(tmp_path: Path, clip) -> None:
    """Features that tell people apart by one pixel: validation people are found, whatever the others look like."""
    root, size = tmp_path / "people", (SIZE.width, SIZE.height)
    rows = ["path,pid,camid,caption,split"]
    for person, split in enumerate(["train", "train", "val", "val", "test"]):
        for camera in (1, 2):
            shown = picture(person, size)
            shown.putpixel((0, 0), (camera, 0, 0))  # the same, but for a pixel: of the same pixels, it would be the query itself
            save(shown, root / f"{person}_{camera}.png")
            rows.append(f"{person}_{camera}.png,{person},{camera},A person called {person}.,{split}")
    (root / "table.csv").write_text("\n".join(rows))
    build(tmp_path, tmp_path / "out", datasets=({**CUHK, "format": "table", "folder": "people"},))
    tables = Manifests(tmp_path / "out" / "manifests")
    sets = read_validation_sets(tables)
    captions, pictures = sets[0].queries_and_gallery(T2I)
    queries, gallery = sets[0].queries_and_gallery(I2I)
    assert len(sets) == 1 and sets[0].tasks == [T2I, I2I]
    assert set(captions["person"]) | set(pictures["person"]) | set(queries["person"]) | set(gallery["person"]) == {"2", "3"}
    assert len(captions) == 4 and len(pictures) == 4 and len(queries) + len(gallery) == 4 and len(queries) >= 2
    towers = {"images": ImageTower(clip, task_routing=True), "texts": TextTower(clip)}
    figures = validate(Extractor(**towers, size=SIZE, batch_size=3, device=torch.device("cpu")), tables, sets)
    assert list(figures) == BOTH and all(0 < value <= 100 for value in figures.values())
    assert figures["i2i"] == 100.0  # the two pictures of a person are the same but for a pixel
    assert np.isfinite(figures["t2i"])
