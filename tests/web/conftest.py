"""A gallery with cameras, a further column, and a cell that a spreadsheet would run."""

import pytest

from hpl.search.gallery import Gallery
from tests.support.small_model import draw_pictures, save_small_model


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("page")
    files = draw_pictures(folder / "crops", 9)
    lines = [f"{file},{number % 3},{('hall', 'door')[number % 2]},=1+{number}\n" for number, file in enumerate(files)]
    (folder / "table.csv").write_text("path,camera,place,note\n" + "".join(lines))
    made = Gallery.create(folder / "g", save_small_model(folder / "model"), engine="numpy")
    assert made.add(folder / "table.csv").added == 9
    return made
