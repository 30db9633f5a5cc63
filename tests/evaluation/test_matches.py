"""What a query can find, told without a model: as the rule that scores says it."""

import numpy as np
import pandas as pd
import pytest

from hpl.evaluation.matches import unmatched, why_unscored
from hpl.tasks import I2I, T2I


def pictures(*rows: tuple[int, int]) -> pd.DataFrame:
    """Pictures of (pid, camid), each of its own pixels."""
    table = pd.DataFrame(list(rows), columns=["pid", "camid"], dtype=np.int64)
    return table.assign(sha256=[f"{id(rows)}-{number}" for number in range(len(table))])


def test_a_query_matches_its_person_by_another_camera() -> None:
    queries, gallery = pictures((1, 1), (1, 2), (2, 1), (3, -1), (0, 1)), pictures((1, 1), (2, 1), (3, -1), (0, 2), (-1, 3))
    assert unmatched(I2I, queries, gallery).tolist() == [True, False, True, False, True]
    assert why_unscored(I2I, queries, gallery) == ""


@pytest.mark.parametrize(
    ("queries", "gallery", "reason"),
    [
        (
            [(1, 3), (2, 3)],
            [(1, 3), (2, 3), (0, 1)],
            "all 4 pictures of people are by camera 3, .*no cameras if they are not known",
        ),
        ([(1, 1), (2, 2)], [(3, 1), (0, 2)], "none of the 2 people of 2 queries is in the gallery of 2 pictures; expected"),
        ([(1, 1), (2, 2)], [], "none of the 2 people of 2 queries is in the gallery of 0 pictures"),
        ([(1, 1), (2, 2)], [(1, 1)], "none of 2 queries has a match: 1 of 2 people asked for are not in the gallery"),
        ([], [(1, 1), (2, 2)], "none of 2 people has pictures by two cameras"),
        ([], [(1, -1), (2, -1)], "none of 2 people has two different pictures"),
        ([], [(0, -1)], "none of 0 people has two different pictures"),
    ],
)
def test_the_reason_has_numbers_and_the_way_out(queries: list, gallery: list, reason: str) -> None:
    assert pd.Series([why_unscored(I2I, pictures(*queries), pictures(*gallery))]).str.match(reason).item()


def test_captions_find_their_own_picture_and_none_is_named() -> None:
    captions, gallery = pd.DataFrame({"pid": [1]}), pictures((1, 1), (2, 1))
    assert why_unscored(T2I, captions, gallery) == "" and not unmatched(T2I, captions, gallery).any()
    assert why_unscored(T2I, captions[:0], gallery) == "none of 2 pictures is of a person and has a caption; expected captions"
