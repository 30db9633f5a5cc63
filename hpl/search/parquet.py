"""A gallery's pictures and vectors as Parquet, for other engines."""

import os
from pathlib import Path

import numpy as np

from hpl.files import HplError, room
from hpl.search.gallery import Gallery
from hpl.tasks import TASKS


def export_vectors(gallery: Gallery, file: Path) -> int:
    """Write one row a picture: id, path, camera, time, track, columns (JSON), t2i and i2i (lists of float16). Returns rows."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise HplError("export needs pyarrow; pip install 'hpl-reid[parquet]'") from None
    store, names, partial = (
        gallery.store,
        ["id", "path", "camera", "time", "track", "columns"],
        file.with_name(f".{file.name}.partial"),
    )
    kinds = [arrow.int64(), arrow.string(), arrow.string(), arrow.float64(), arrow.string(), arrow.string()]
    vector = arrow.list_(arrow.float16(), store.about["features"])
    schema = arrow.schema([*zip(names, kinds), *((name, vector) for name in TASKS)])
    count = 0
    try:
        with room(file), parquet.ParquetWriter(partial, schema) as writer:
            for number in store.segments():
                sql = "SELECT row, id, path, camera, time, track, columns FROM pictures WHERE segment = ? ORDER BY row"
                found = store.all(sql, (number,))
                rows = np.array([row for row, *_ in found], np.int64)
                told = [arrow.array([each[place + 1] for each in found], kind) for place, kind in enumerate(kinds)]
                for name in TASKS:
                    values = arrow.array(store.vectors(number, name)[rows].ravel())
                    told.append(arrow.FixedSizeListArray.from_arrays(values, store.about["features"]))
                writer.write_table(arrow.table(told, schema=schema))
                count += len(found)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return count
