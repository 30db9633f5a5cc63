"""The page by its addresses: what it finds, and each line of what it must refuse, attacked."""

import csv
import io
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hpl.files import HplError
from hpl.search.gallery import Gallery
from hpl.web import app as application
from hpl.web.address import Asked, Uploads, read_asked
from hpl.web.app import make_app

OWN = "http://127.0.0.1:8000"
HERE = {"Origin": OWN}


@pytest.fixture(scope="module")
def client(gallery: Gallery) -> TestClient:
    return TestClient(make_app(gallery), base_url=OWN, follow_redirects=False)


def png(height: int = 30, width: int = 15, seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def ids(page: str) -> list[int]:
    return [int(each) for each in re.findall(r'name="picture" value="(\d+)"', page)]


def test_an_address_is_read_as_it_was_written() -> None:
    asked = Asked(
        q="a & b=c", unlike="hat", like=(3, 1), wrong=(2,), upload=("ab",), camera=("1", "x y"), other=True, where=("a=b=c",), k=7
    )
    from urllib.parse import parse_qsl, urlsplit

    assert read_asked(parse_qsl(urlsplit(asked.address()).query)) == asked
    assert Asked().address() == "/" and Asked(k=7).is_empty
    assert read_asked(parse_qsl(asked.marked("wrong", 3)[2:])).like == (1,)
    assert read_asked(parse_qsl(asked.marked("like", 3)[2:])).like == (1,)


def test_the_page_ranks_as_the_gallery_does(client: TestClient, gallery: Gallery) -> None:
    page = client.get("/?q=a+man&k=5").text
    assert ids(page) == [hit.id for hit in gallery.search(text="a man", k=5)]
    liked = client.get("/?q=a+man&like=4&wrong=2&camera=1&where=place%3Dhall").text
    wanted = gallery.search(text="a man", pictures=[4], against_pictures=[2], cameras=["1"], where={"place": "hall"})
    assert ids(liked) == [hit.id for hit in wanted] and 0 < len(wanted) < 9
    assert len(ids(client.get("/").text)) == 9  # nothing is asked: the gallery's first pictures


def test_an_uploaded_picture_asks_and_its_address_can_be_gone_back_to(client: TestClient, gallery: Gallery) -> None:
    data = Path(gallery.picture(5).path).read_bytes()
    sent = client.post("/", headers=HERE, data={"q": "", "k": "3", "other": "1"}, files={"files": ("a.png", data)})
    assert sent.status_code == 303
    page = client.get(sent.headers["location"]).text
    assert ids(page) == [hit.id for hit in gallery.search(pictures=[data], other_cameras=True, k=3)] and 5 not in ids(page)
    name = re.search(r"upload=(\w+)", sent.headers["location"])[1]
    assert client.get(f"/upload/{name}").headers["content-type"] == "image/jpeg"
    gone = client.get("/?upload=0123")
    assert gone.status_code == 400 and "no longer held" in gone.text


def test_uploads_are_limited_together() -> None:
    uploads = Uploads(most_bytes=10)
    for name in "abc":
        uploads.keep(name, b"1234")
    with pytest.raises(HplError):
        uploads.find("a")
    assert uploads.find("b") and uploads.find("c")


def test_two_pictures_are_compared(client: TestClient, gallery: Gallery) -> None:
    page = client.get("/compare?picture=1&picture=4").text
    assert f"Score {gallery.compare(1, 4).score:.4f}" in page and page.count("?large") == 2
    assert "expected two" in client.get("/compare?picture=1").text
    assert "not in the gallery" in client.get("/compare?picture=1&picture=99999").text


def test_csv_holds_nothing_that_a_spreadsheet_runs(client: TestClient) -> None:
    answer = client.get("/results.csv?q=a+man&k=2")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 2 and all(row["note"].startswith("'=1+") for row in rows)
    assert "attachment" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "address, said",
    [
        ("/?q=%3F%21", "no known word"),
        ("/?like=99999", "not in the gallery"),
        ("/?like=..%2Fetc", "expected a number"),
        ("/?q=a+man&where=colour%3Dred", "expected one of"),
        ("/?q=a+man&where=red", "expected column=value"),
        ("/?q=a+man&after=noon", "ISO 8601"),
        ("/?q=a+man&k=0", "at least 1"),
        (f"/?q={'a' * 1001}", "at most"),
        ("/?" + "&".join(f"camera={number}" for number in range(40)), "at most"),
    ],
)
def test_a_wrong_address_is_one_line_and_no_fault(client: TestClient, address: str, said: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400 and said in re.search(r'role="alert">([^\n]*)</p>', answer.text)[1]


def test_a_name_is_shown_and_not_run(client: TestClient) -> None:
    page = client.get("/?q=%3Cscript%3Ealert(1)%3C/script%3E+man%22").text
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:80", ""])
def test_a_foreign_name_that_leads_here_is_refused(client: TestClient, host: str) -> None:
    for address in ("/", "/picture/1", "/results.csv?q=a+man"):
        assert client.get(address, headers={"Host": host}).status_code == 403
    assert client.post("/", headers={"Host": host, "Origin": f"http://{host}"}, data={"q": "a"}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "localhost:8000", "[::1]:8000", "127.9.9.9"])
def test_this_machines_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/page.css", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:9", "", None])
def test_another_sites_form_is_refused(client: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = client.post("/", headers=headers, files={"files": ("a.png", png())})
    assert answer.status_code == 403


def test_another_sites_page_cannot_embed_a_picture_but_may_link(client: TestClient) -> None:
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}
    assert client.get("/picture/1", headers=embedded).status_code == 403
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=linked).status_code == 200


def test_every_answer_has_the_headers(client: TestClient) -> None:
    for address, status in (("/", 200), ("/picture/1", 200), ("/picture/99999", 404), ("/nothing", 404), ("/?q=%3F", 400)):
        answer = client.get(address)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "address",
    [
        "/picture/../../etc/passwd",
        "/picture/%2e%2e%2fetc%2fpasswd",
        "/picture//etc/passwd",
        "/upload/..%2F..%2Fetc",
        "/etc/passwd",
    ],
)
def test_no_path_reaches_a_file(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code in (400, 404) and "root:" not in answer.text


def test_a_token_is_asked_for_on_every_route(gallery: Gallery) -> None:
    client = TestClient(make_app(gallery, "secret"), base_url="http://10.0.0.7:8000", follow_redirects=False)
    for address in ("/", "/picture/1", "/results.csv?q=a+man", "/compare?picture=1&picture=2", "/page.css", "/nothing"):
        assert client.get(address).status_code == 401
        assert client.get(address, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get(address, headers={"Cookie": "hpl_token=wrong"}).status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/", headers={"Authorization": "Bearer secret"}).status_code == 200
    entered = client.get("/?token=secret")
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert client.get("/").status_code == 200  # the client keeps the cookie
    posted = client.post("/", headers={"Origin": "http://evil.example"}, data={"q": "a man"})
    assert posted.status_code == 403  # also with the cookie


def test_an_upload_is_limited_in_bytes_pixels_and_number(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpl.pictures.MAX_PIXELS", 100)
    large = client.post("/", headers=HERE, files={"files": ("large.png", png(20, 20))})
    assert large.status_code == 400 and "large.png: picture of 20 x 20 pixels" in large.text
    monkeypatch.undo()
    several = [("files", (f"{number}.png", png(seed=number))) for number in range(9)]
    assert client.post("/", headers=HERE, files=several).status_code == 400
    monkeypatch.setattr(application, "MOST_BYTES", 1000)
    heavy = client.post("/", headers=HERE, files={"files": ("heavy.png", png())})
    assert heavy.status_code == 413 and "MiB in one upload" in heavy.text


def test_an_upload_that_is_no_picture_is_named(client: TestClient) -> None:
    for data in (b"", b"GIF89a", b"<svg onload=alert(1)>", b"http://127.0.0.1:22/"):
        answer = client.post("/", headers=HERE, files={"files": ("<b>x.png", data)})
        assert answer.status_code == 400 and "&lt;b&gt;x.png" in answer.text
    broken = client.post("/", headers=HERE | {"Content-Type": "multipart/form-data; boundary=x"}, content=b"--y\r\n")
    assert broken.status_code in (303, 400)
    assert client.post("/", headers=HERE | {"Content-Type": "text/plain"}, content=b"q=a").status_code == 400


def test_an_upload_never_touches_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(self: object) -> None:
        raise AssertionError("written to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    data = png(1000, 800)
    assert len(data) > 2 * 2**20
    assert client.post("/", headers=HERE, files={"files": ("a.png", data)}).status_code == 303


def test_an_empty_gallery_says_so(gallery: Gallery, tmp_path: Path) -> None:
    empty = TestClient(make_app(Gallery.create(tmp_path / "g", gallery.model.folder)), base_url=OWN)
    assert "The gallery is empty" in empty.get("/").text
    assert "empty gallery" in empty.get("/?q=a+man").text
