"""Finding people in galleries of one's own pictures; knows nothing of the pipeline.

::

    from hpl.search import Gallery
    gallery = Gallery.open("shop.gallery")
    for hit in gallery.search(text="A woman in a red coat."): print(hit.path, hit.score)
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "Gallery": "hpl.search.gallery",
    "Hit": "hpl.search.gallery",
    "Found": "hpl.search.gallery",
    "Query": "hpl.search.query",
}


def __getattr__(name: str) -> Any:
    """Import what this package offers when it is asked for, so that its other modules load without it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
