"""The two retrieval tasks of the one model, and the marks that their protocols know."""

from dataclasses import dataclass

JUNK_PID = -1  # a picture that scoring ignores
DISTRACTOR_PID = 0  # a picture in the gallery that matches nobody
NO_CAMERA = -1  # it is not known which one


@dataclass(frozen=True)
class Task:
    """What is asked, what is searched, and which rule scores it.

    Attributes:
        name: in params.yaml, metrics.json and names of tables; `short`, `title`: in reports; `asks`: what a query is, plural.
        by_caption: queries are captions, the gallery is every test picture; else both are pictures that the set marks.
        by_camera: pictures of the query's person by its own camera are left out.
        query_key: the column of a query's id in tables of scores; `id_column`: the same in the table of queries.
        summed_ranks: the ranks whose rates make R-sum; empty: the task's papers print none.
    """

    name: str
    short: str
    title: str
    asks: str
    by_caption: bool
    by_camera: bool
    query_key: str
    id_column: str
    summed_ranks: tuple[int, ...] = ()


T2I = Task("t2i", "T2I", "Text to image", "captions", True, False, "caption_id", "caption_id", summed_ranks=(1, 5, 10))
I2I = Task("i2i", "I2I", "Image to image", "pictures", False, True, "query_image_id", "image_id")
TASKS = {task.name: task for task in (T2I, I2I)}
