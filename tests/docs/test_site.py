"""The site builds without a warning, and in a real browser it asks no other host for anything and fits a phone and a desk."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.chromium import Browser, asked, complaints
from tests.support.imports import ROOT

MISSING = [name for name in ("sphinx", "myst_parser", "furo") if find_spec(name) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install -e '.[docs]'")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of what it reads."""
    copy = tmp_path_factory.mktemp("docs")
    for name in ("docs", "hpl", "reports"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("_build", "api", "__pycache__"))
    for name in ("params.yaml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "docs", "site"]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    return copy / "site"


def test_every_room_has_a_page_and_every_page_a_place(site: Path) -> None:
    rooms = {path.stem for path in (ROOT / "hpl").iterdir() if path.stem[0] != "_"}
    assert {page.stem for page in (site / "api").glob("*.html")} == rooms
    start = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in start or page.stem == "index", page
    assert "hpl.losses.triplet.batch_hard_triplet_loss" in (site / "method.html").read_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_need_no_other_host_and_fit(site: Path, tab: Browser, width: int) -> None:
    for page in [*site.glob("*.html"), *(site / "api").glob("*.html")]:
        if page.name in ("genindex.html", "py-modindex.html"):
            continue
        events = tab.open(page.as_uri(), width)
        assert [url for url in asked(events) if not url.startswith((site.as_uri(), "data:"))] == [], page
        assert complaints(events) == [], page
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)"), page
        assert tab.evaluate("document.documentElement.scrollWidth") == width, page
