"""What the README promises is so."""

import json
import re

import pytest

from hpl.config import load_params
from hpl.reports.page import result_table
from hpl.reports.pull_request import flat
from tests.support.imports import ROOT

README = (ROOT / "README.md").read_text()


def test_the_result_table_is_the_committed_metrics() -> None:
    metrics, baselines = (json.loads((ROOT / "reports" / name).read_text()) for name in ("metrics.json", "baselines.json"))
    assert result_table(metrics, baselines) in README
    assert result_table(metrics, baselines) in (ROOT / "reports" / "README.md").read_text()


def test_the_bundled_set_tells_methods_apart() -> None:
    """Neither near chance nor near 100, above the backbone that was not trained, and far above colour alone."""
    metrics, baselines = (json.loads((ROOT / "reports" / name).read_text()) for name in ("metrics.json", "baselines.json"))
    zero_shot = baselines["zero_shot"]
    assert 45 <= metrics["t2i"]["rank1"] <= 95 and metrics["t2i"]["rank1"] >= zero_shot["t2i"]["rank1"] + 3
    assert 50 <= metrics["i2i"]["mAP"] <= 95 and metrics["i2i"]["mAP"] >= zero_shot["i2i"]["mAP"] + 8
    assert baselines["colour_histogram"]["i2i"]["mAP"] < metrics["i2i"]["mAP"] / 2


@pytest.mark.parametrize("page", ["README.md", "reports/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_its_switches_exist() -> None:
    params = load_params(ROOT / "params.yaml").model_dump()
    keys = set(re.findall(r"-S '?([a-z_.0-9]+)=", README))
    assert len(keys) >= 8
    for key in keys:
        value = params
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M)) <= targets


def test_the_table_of_experiments_has_the_main_figures_and_every_parameter() -> None:
    """DVC drops a column whose name begins with a match."""
    clutter = re.compile(re.search(r"^CLUTTER := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1])
    figures = flat(json.loads((ROOT / "reports" / "metrics.json").read_text()))
    main = {f"{name}.{figure}" for name in ("t2i", "i2i", "composed.both") for figure in ("rank1", "mAP")}
    assert {name for name in figures if not clutter.match(name)} == main | {
        f"open_set.{task}.detection_rate" for task in ("t2i", "i2i")
    }
    assert not [name for name in flat(load_params(ROOT / "params.yaml").model_dump()) if clutter.match(name)]
    for name in ("Created", "hpl/config.py", "data/model", "reports/metrics.json", "stages/train.py", "composed.both.mAP_ci_low"):
        assert clutter.match(name), name
