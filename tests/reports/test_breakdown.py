"""Breakdowns on tables that a reader can count by eye."""

from types import SimpleNamespace

import pandas as pd
import pytest

from hpl.reports.breakdown import agreement, confusion, figures_by, first_found, pick_examples, read_attributes
from hpl.reports.content import Figure, Table, html, markdown, plain
from hpl.tasks import T2I

SCORES = pd.DataFrame(
    {
        "dataset": "own",
        "caption_id": [5, 1, 2, 3, 4, 6, 7],
        "pid": [1, 1, 2, 3, 4, 5, 6],
        "camid": [1, 1, 2, 2, 2, 3, 3],
        "first_rank": [1, 1, 3, 1, 9, 0, 2],
        "ap": [1.0, 1.0, 0.3, 0.9, 0.1, float("nan"), 0.5],
    }
)


def test_queries_are_chosen_by_rule() -> None:
    chosen = pick_examples(SCORES, "caption_id", 2, seed=0)
    assert chosen["best"]["caption_id"].tolist() == [1, 3]  # the tie by the id, and no second query of person 1
    assert chosen["worst"]["caption_id"].tolist() == [4, 2]
    assert chosen["random"]["caption_id"].tolist() == [7]  # the skipped one is never shown
    assert [len(rows) for rows in pick_examples(SCORES.head(2), "caption_id", 2, seed=0).values()] == [1, 0, 0]
    rows = pd.DataFrame({"caption_id": range(40), "pid": range(40), "first_rank": 1, "ap": 0.5})
    drawn = [pick_examples(rows, "caption_id", 3, seed)["random"]["caption_id"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_figures_by_camera() -> None:
    table = figures_by(SCORES, "camid")
    assert table["num_queries"].tolist() == [2, 3, 1]
    assert table["rank1"].tolist() == pytest.approx([100, 100 / 3, 0])
    assert table["mAP"].tolist() == pytest.approx([100, 130 / 3, 50])


IMAGES = pd.DataFrame(
    {"image_id": range(6), "dataset": "own", "split": ["test"] * 5 + ["train"], "pid": [1, 1, 2, 3, 4, 5]}, index=range(6)
)
CAPTIONS = pd.DataFrame({"caption_id": [10, 11, 12], "image_id": [0, 2, 3]})
TABLES = SimpleNamespace(images=IMAGES, captions=CAPTIONS)
ATTRIBUTES = pd.DataFrame({"top_colour": ["red", "red", "red", "blue", "blue", "red"], "hat": ["no"] * 6})
LISTS = pd.DataFrame(
    {"caption_id": [10, 10, 11, 12], "rank": [1, 2, 1, 1], "image_id": [2, 0, 2, 0], "match": [False, True, True, False]}
)
FOUND = pd.DataFrame({"caption_id": [10, 11, 12], "first_rank": [2, 1, 4], "ap": [0.5, 1.0, 0.2]})


def test_who_is_found_first() -> None:
    first = first_found(LISTS, FOUND, TABLES, T2I)
    assert first[["asked", "found", "match"]].to_numpy().tolist() == [[0, 2, False], [2, 2, True], [3, 0, False]]


def test_agreement_is_of_wrong_results_and_chance_of_other_people() -> None:
    """Wrong: red asked and found, by chance 1 of 3 others; blue asked and red found, by chance 1 of 4 others."""
    table = agreement(first_found(LISTS, FOUND, TABLES, T2I), ATTRIBUTES, TABLES)
    assert table.index.tolist() == ["top_colour", "hat"]  # most beyond chance first
    assert table.loc["top_colour"].tolist() == pytest.approx([50, 100 * (1 / 3 + 1 / 4) / 2, 2])
    assert table.loc["hat"].tolist() == [100, 100, 2]
    right = first_found(LISTS, FOUND, TABLES, T2I).query("match")
    assert agreement(right, ATTRIBUTES, TABLES).empty


def test_confusion_counts_all_queries() -> None:
    counts = confusion(first_found(LISTS, FOUND, TABLES, T2I), ATTRIBUTES, "top_colour")
    assert counts.index.tolist() == counts.columns.tolist() == ["red", "blue"]
    assert counts.to_numpy().tolist() == [[2, 0], [1, 0]]


def test_attributes_are_the_persons_and_the_bag(tables) -> None:
    attributes = read_attributes(tables, "own")
    assert attributes.columns.tolist() == ["top_colour", "gender", "bag"] and len(attributes) == 28
    bare = SimpleNamespace(images=tables.images, datasets={"own": {"folder": "nowhere"}})
    assert read_attributes(bare, "own").empty


def test_a_users_words_are_shown_as_they_are() -> None:
    table = Table(["a|b", "c"], [["<i>x</i>\ny", "`1`"]], "of [me](x)")
    assert markdown(table).splitlines()[-1] == "| \\<i\\>x\\</i\\> y | \\`1\\` |"
    assert "&lt;i&gt;x&lt;/i&gt;" in html(table) and "of [me](x)" in html(table)
    assert plain("a_b *c*") == "a\\_b \\*c\\*"
    assert html("`a<b>` and [there](x.html)") == '<p><code>a&lt;b&gt;</code> and <a href="x.html">there</a></p>'
    assert html(Figure([], "<script>")) == "<figure><figcaption>&lt;script&gt;</figcaption></figure>"
