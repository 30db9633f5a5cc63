"""The page in a real browser: on a phone and on a desk it asks for nothing, complains of nothing, and shows everything."""

from pathlib import Path

import pytest

from tests.support.chromium import Browser, asked, complaints

WIDE = """[...document.querySelectorAll("body *")].filter(each => !each.closest(".wide") && each.getBoundingClientRect().right >
  document.documentElement.clientWidth + 1).map(each => each.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name, num_images", [("reports", 14), ("ablation_reports", 4)])
def test_the_page_is_whole(tab: Browser, request: pytest.FixtureRequest, name: str, num_images: int, width: int) -> None:
    url = (request.getfixturevalue(name) / "index.html").as_uri()
    events = tab.open(url, width)
    assert [address for address in asked(events) if not address.startswith("data:")] == [url]
    assert complaints(events) == []
    assert tab.evaluate("document.images.length") == num_images
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.width > 100)")
    assert tab.evaluate("[...document.images].every(image => image.alt)")
    assert tab.evaluate("[...document.querySelectorAll('tbody tr')].every(row => row.querySelector('th[scope=row]'))")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(WIDE) == []
    assert tab.evaluate("document.title") in ("Hierarchical Prompt Learning: report", "Ablation")


def test_every_heading_can_be_reached(tab: Browser, reports: Path) -> None:
    tab.open((reports / "index.html").as_uri(), 390)
    reached = """[...document.querySelectorAll("nav a")].every(link => {
      link.click();
      const top = document.getElementById(link.hash.slice(1)).getBoundingClientRect().top;
      return top >= 0 && top < innerHeight;
    })"""
    assert tab.evaluate(reached)


def test_a_request_would_be_noticed(tab: Browser, tmp_path: Path) -> None:
    """The check itself: a page with a picture from elsewhere and a fault in a script."""
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/a.png" alt="x"><script>nothing()</script><p style="width: 2000px">wide</p>')
    methods = {event["method"] for event in tab.open(page.as_uri(), 390)}
    assert {"Network.loadingFailed", "Runtime.exceptionThrown"} <= methods
    assert tab.evaluate(WIDE) != []
