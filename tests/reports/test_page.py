"""The result tables, both forms of the report, and figures with the same bytes for the same content."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hpl.reports.content import markdown
from hpl.reports.results import other_tables, task_tables
from tests.support.reported import HOSTILE, baselines, figures, measured, write


class Page(HTMLParser):
    """Tags with their attributes, and what stands between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(reports: Path) -> Page:
    return Page((reports / "index.html").read_text())


def test_a_table_a_task_with_intervals_where_there_are_some() -> None:
    t2i, i2i = map(markdown, task_tables(measured(), baselines()))
    assert t2i.splitlines()[0] == "| T2I, percent | R1 | R5 | R10 | mAP | mINP | R-sum |"
    assert t2i.splitlines()[2:] == [
        "| HPL, trained | 50.00 (44.4-55.5) | 50.00 | 50.00 | 50.00 (43.0-57.0) | 50.00 | 150.00 (140.0-160.0) |",
        "| same backbone, zero-shot | 40.00 | 40.00 | 40.00 | 40.00 | 40.00 | 120.00 |",
        "| gain over zero-shot | −0.50 (−1.5 to +0.0) |  |  | +2.00 (+1.0 to +3.0) |  |  |",
    ]
    assert i2i.splitlines()[4] == "| colour histogram |" + " 9.50 |" * 5
    assert len({line.count("|") for line in i2i.splitlines()}) == 1
    assert [table.header[0] for table in task_tables({"i2i": figures(1.0)}, baselines())] == ["I2I, percent"]


def test_what_is_beyond_the_plain_protocol_is_labelled_at_every_figure() -> None:
    on = measured() | {"settings": {"rerank": 1, "flip": 1}}
    tables = task_tables(on, baselines()) + other_tables(on, baselines())
    shown = [row[0] for table in tables for row in table.rows if re.match("HPL|same|MSMT", row[0])]
    assert len(shown) == 6 and all(", re-ranked, with mirror images" in row for row in shown)


def test_further_data_sets_have_tables_of_their_own() -> None:
    assert other_tables({"t2i": figures(1.0)}, baselines()) == []
    (table,) = other_tables(measured(), baselines())
    assert table.rows == [["MSMT17", *["30.00"] * 5], ["MSMT17, zero-shot", *["10.00"] * 5]]


def test_every_picture_is_inside_and_has_words(page: Page, reports: Path) -> None:
    images = page.named("img")
    assert len(images) == len(list((reports / "figures").glob("*.png"))) == 14
    for image in images:
        assert image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 20 and int(image["width"]) > 300
    assert (reports / "index.html").stat().st_size < 3_000_000


def test_nothing_is_loaded_from_elsewhere(page: Page, reports: Path) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "video", "audio", "form", "base")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "data", "poster", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    text = (reports / "index.html").read_text()
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text


def test_the_contents_lead_to_headings_and_links_to_files(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.named("a")]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert inner == [attributes["id"] for attributes in page.named("h2")] and set(inner) <= set(ids) and len(inner) == 17
    assert {link for link in links if not link.startswith("#")} == {"data_audit.md", "ablation/index.html"}


def test_a_caption_is_shown_and_not_obeyed(page: Page, reports: Path) -> None:
    shown = re.sub(r"\s+", " ", HOSTILE)
    assert any(shown in text for text in page.text)  # a picture's caption, among those under the maps
    assert "own <b>" in page.text and not page.named("b")
    markdown = (reports / "README.md").read_text()
    assert "<b>" not in markdown.replace("\\<b\\>", "") and "<script" not in markdown


def test_what_was_measured_is_there(page: Page, reports: Path) -> None:
    cells = set(page.text)
    assert {"50.00 (44.4-55.5)", "12.34 (10.0-14.0)", "61.50 (44.4-55.5)", "MSMT17, zero-shot", "picture and sentence"} <= cells
    assert {"gain over the picture", "−0.50 (−1.5 to +0.0)", "+2.00 (+1.0 to +3.0)"} <= cells
    assert any("1,020 queries (7 skipped" in text for text in page.text)
    assert {"gender", "upper garment colour", "green", "4"} <= cells  # attributes, a value, a camera
    headings = {"Image to image by camera", "Text to image by attribute", "Strangers", "Composed queries", "Other data sets"}
    assert headings <= cells


def test_the_short_form_has_the_main_figures_and_its_links_lead_somewhere(reports: Path) -> None:
    text = (reports / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {
        f"figures/{name}.png" for name in ("rank_lists_t2i", "rank_lists_i2i", "attention", "contact_sheet", "curves_train")
    } <= {*links}
    assert all((reports / link).exists() for link in links if link != "data_audit.md")
    assert all(markdown(table) in text for table in task_tables(measured(), baselines()))


def test_validation_is_drawn_where_there_is_some(reports: Path) -> None:
    assert {file.name for file in (reports / "figures").glob("curves*")} == {"curves_train.png", "curves_train_validation.png"}


def test_the_same_bytes_twice(reports: Path, manifests: Path, evaluation: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "again", manifests, evaluation)
    files = [file.relative_to(reports) for file in reports.rglob("*") if file.is_file()]
    assert len(files) == 16
    for file in files:
        assert (reports / file).read_bytes() == (again / file).read_bytes(), file
        assert b"Software" not in (reports / file).read_bytes()[:400]


def test_what_was_not_scored_is_said_with_its_reason(manifests: Path, evaluation: Path, tmp_path: Path) -> None:
    metrics = {name: values for name, values in measured().items() if name not in ("i2i", "composed")}
    reasons = {"own": {"i2i": "all 9 pictures are by camera 3", "composed": "nobody has two"}, "MSMT17": {"open_set_i2i": "one"}}
    reports = write(tmp_path, manifests, evaluation, metrics | {"not_scored": reasons})
    text = (reports / "README.md").read_text()
    assert "- Not scored: own, image to image: all 9 pictures are by camera 3\n" in text and "T2I, percent" in text
    assert "Not scored: own, composed queries: nobody has two" in text
    assert "Not scored: MSMT17, strangers, image to image" in (reports / "index.html").read_text()


def test_one_task_alone(manifests: Path, evaluation: Path, tmp_path: Path) -> None:
    """A set without captions: no file of the other task, no picture explained."""
    alone = tmp_path / "evaluation"
    alone.mkdir()
    for file in evaluation.iterdir():
        if "t2i" not in file.name:
            shutil.copy(file, alone)
    ids = np.zeros(0, np.int64)
    maps = np.zeros((0, 1, 1), np.float32)
    np.savez(alone / "attention.npz", image_id=ids, caption_id=ids, partner_image_id=ids, t2i=maps, i2i=maps)
    reports = write(tmp_path / "project", manifests, alone, {"i2i": figures(60.0)})
    names = {file.stem for file in (reports / "figures").glob("*.png")}
    assert "rank_lists_i2i" in names and not names & {"rank_lists_t2i", "attention", "attributes", "confusion"}
    assert "Strangers" not in (reports / "index.html").read_text()


def test_what_a_score_says_is_shown_with_what_it_cannot_say(reports: Path) -> None:
    text = (reports / "README.md").read_text()
    assert "| T2I | 2.10 (1.00-3.00) | 2.10 (1.00-3.00) | 0.0300 | 50 | 6,000 |" in text
    assert "| T2I | 1 | 1.23 (0.8-1.7) | 77 | 44.4 |" in text
    assert "- Not calibrated, I2I: nobody is in val" in text
    assert "- No threshold, T2I, one in 1000: 6 false alarms are expected" in text
    assert "| test split | 0.456 | 0.800 | 0.700 | 40 | 56 | 7 |" in text
    assert (reports / "figures" / "reliability_t2i.png").is_file() and not (reports / "figures" / "reliability_i2i.png").exists()
