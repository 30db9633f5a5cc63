"""A Qdrant server as engine, beyond one machine: one point a picture, named vectors for both tokens, camera and time as payload.

Start one: `docker run -p 6333:6333 -v "$PWD/qdrant:/qdrant/storage" qdrant/qdrant ./qdrant --disable-telemetry`
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpl.files import HplError
from hpl.search.gallery import Gallery
from hpl.tasks import TASKS

_POINTS = 256  # sent at a time


def send_gallery(gallery: Gallery, client: Any, collection: str) -> int:
    """Write a gallery's pictures into a collection, made anew. Returns how many.

    Args:
        client: a qdrant_client.QdrantClient.
    """
    from qdrant_client import models

    vector = models.VectorParams(
        size=gallery.store.about["features"], distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16
    )
    if client.collection_exists(collection):
        client.delete_collection(collection)
    client.create_collection(collection, vectors_config=dict.fromkeys(TASKS, vector))
    points, count = [], 0
    for number, payload, vectors in _pictures(gallery):
        points.append(models.PointStruct(id=number, vector=vectors, payload=payload))
        if len(points) == _POINTS:
            client.upsert(collection, points)
            count, points = count + len(points), []
    if points:
        client.upsert(collection, points)
    return count + len(points)


def _pictures(gallery: Gallery) -> Iterator[tuple[int, dict, dict]]:
    for segment in gallery.store.segments():
        blocks = {name: gallery.store.vectors(segment, name) for name in TASKS}
        sql = "SELECT id, row, path, camera, time, track FROM pictures WHERE segment = ? ORDER BY row"
        for number, row, *told in gallery.store.all(sql, (segment,)):
            payload = dict(zip(("path", "camera", "time", "track"), told, strict=True))
            yield number, payload, {name: block[row].astype(np.float32).tolist() for name, block in blocks.items()}


class QdrantEngine:
    """Exact search of one task's vectors in a collection that `send_gallery` wrote; rows are ids of pictures."""

    def __init__(self, client: Any, collection: str, task: str) -> None:
        self.client, self.collection, self.task = client, collection, task

    def search(
        self, query_D: np.ndarray, k: int, *, ids: np.ndarray | None = None, cameras: list[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and cosines of the k nearest, of those ids and cameras only.

        Raises:
            HplError: the server does not answer, or has no such collection.
        """
        from qdrant_client import models

        conditions: list = []
        if ids is not None:
            conditions.append(models.HasIdCondition(has_id=[int(each) for each in ids]))
        if cameras is not None:
            conditions.append(models.FieldCondition(key="camera", match=models.MatchAny(any=cameras)))
        try:
            found = self.client.query_points(
                self.collection,
                query=np.asarray(query_D, np.float32).tolist(),
                using=self.task,
                limit=k,
                query_filter=models.Filter(must=conditions) if conditions else None,
                search_params=models.SearchParams(exact=True),
            ).points
        except Exception as error:  # the client raises a type of its own for each transport
            raise HplError(f"Qdrant, collection {self.collection}: {' '.join(str(error).split())[:200]}") from error
        order = sorted(found, key=lambda point: (-point.score, point.id))
        return np.array([point.id for point in order], np.int64), np.array([point.score for point in order])

    def remove(self, ids: list[int]) -> None:
        """Delete pictures from the collection."""
        self.client.delete(self.collection, points_selector=ids)
