"""Manifests of the miniature data sets of tests/conftest.py."""

from pathlib import Path

from hpl.config import Data, Preprocess, load_params
from hpl.manifests.tables import Manifests
from hpl.readers.build import build_manifests
from tests.support.imports import ROOT
from tests.support.parameters import with_profile
from tests.support.tiny import SIZE

CUHK = {"format": "cuhk-pedes", "folder": "CUHK-PEDES", "use": ["train", "test"], "official": False}
MARKET = {"format": "market-1501", "folder": "Market-1501", "use": ["train", "test"], "official": False}
OPTIONS = Preprocess(
    on_bad_image="error",
    strict=False,
    pack_pictures=True,
    link_candidate=0.86,
    link_correlation=0.92,
    test_share=0.5,
    split_seed=0,
)


def build(
    raw: Path,
    out: Path,
    num_workers: int = 1,
    datasets: tuple[dict, ...] = (CUHK, MARKET),
    store: Path | None = None,
    val_share: float = 0.0,
    **changes: object,
) -> Manifests:
    data = Data.model_validate({"datasets": list(datasets), "val_share": val_share})
    params = with_profile(load_params(ROOT / "params.yaml"), data=data, input=SIZE)
    params = params.model_copy(update={"preprocess": OPTIONS.model_copy(update=changes), "num_workers": num_workers})
    build_manifests(raw, params, out / "manifests", out / "pictures", store or out / "store")
    return Manifests(out / "manifests")
