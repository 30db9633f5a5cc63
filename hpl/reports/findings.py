"""Sections of a report on what the model finds and confuses, each with the figures it needs, drawn into a folder."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.manifests.tables import Manifests
from hpl.reports.breakdown import agreement, confusion, figures_by, first_found, pick_examples, read_attributes
from hpl.reports.content import Definitions, Figure, Section, Table
from hpl.reports.retrieval_figures import (
    draw_agreement,
    draw_attention,
    draw_confusion,
    draw_projection,
    draw_rank_lists,
    draw_similarities,
    project,
)
from hpl.tasks import T2I, TASKS, Task

_NUM_EXAMPLES = 2  # rank lists shown of the best, the worst and random queries
_LENGTH = 10  # pictures shown of each
_NUM_PROJECTED = 600  # pictures in a projection
_COLOUR = "top_colour"  # the attribute whose confusions are drawn


def _file(tables: Manifests, image_id: int) -> Path:
    return tables.files(tables.images.loc[[image_id]])[0]


def rank_lists(task: Task, lists: pd.DataFrame, scores: pd.DataFrame, tables: Manifests, seed: int, figures: Path) -> Section:
    """Show rank lists of queries picked by rule, and in words the ranks of the right pictures."""
    key, sentences = task.query_key, tables.captions.set_index("caption_id")["caption"]
    groups: dict[str, list[dict]] = {}
    words = []
    for group, chosen in pick_examples(scores, key, _NUM_EXAMPLES, seed).items():
        groups[f"{group} queries"] = []
        for query in chosen.to_dict("records"):
            found = lists[(lists[key] == query[key]) & (lists["rank"] <= _LENGTH)].sort_values("rank")
            right = ", ".join(map(str, found.loc[found["match"], "rank"]))
            result = f"average precision {query['ap']:.2f}, first right picture at rank {query['first_rank']}"
            if task.by_caption:
                asked, picture, shown = sentences[query[key]], None, sentences[query[key]]
            else:
                asked = f"a picture of camera {query['camid']}" if query["camid"] >= 0 else "a picture"
                picture, shown = _file(tables, query[key]), f"{asked}: {result}"
            files = [_file(tables, image_id) for image_id in found["image_id"]]
            pictures = list(zip(files, found["similarity"], found["match"], strict=True))
            groups[f"{group} queries"].append({"query": picture, "text": shown, "found": pictures})
            words.append(f"{group}: {asked} ({result}; right of the {len(found)} shown: {right or 'none'})")
    path = figures / f"rank_lists_{task.name}.png"
    draw_rank_lists(groups, int(min(lists["rank"].max(), _LENGTH)), path)
    text = "The best and the worst queries by average precision, and random ones by a seed, each of another person."
    if task.by_camera:
        text += " Where cameras are known, the query's own camera is left out of the gallery, as the protocol says."
    kind = task.title.lower()
    alt = f"Rank lists, {kind}: a query, then the best pictures; a tick on green is the right person, a cross on orange another"
    return Section(f"Rank lists, {kind}", [text, Figure([(path, alt)], details=words)], short=True)


def attention(maps: dict, tables: Manifests, figures: Path) -> list[Section]:
    """Show pictures under the maps of both class tokens; no section if no caption set is evaluated."""
    if not len(maps["image_id"]):
        return []
    captions = tables.captions.set_index("caption_id")["caption"][maps["caption_id"]].tolist()
    files, partners = (tables.files(tables.images.loc[maps[name]]) for name in ("image_id", "partner_image_id"))
    draw_attention(list(zip(files, partners, captions, *(maps[task] for task in TASKS), strict=True)), figures / "attention.png")
    alt = (
        "A row a picture: the picture, over it the map of the T2I token, then that of the I2I token, its partner, and the caption"
    )
    text = (
        "Grad-CAM of both class tokens on the same picture (paper Fig. 4): bright is what speaks for cos(v_t2i, t_eos) of the "
        "caption, and for cos(v_i2i, v_i2i) of the partner, another picture of the person. The people are evenly spaced over "
        "the test split, not chosen by their maps. A map is as fine as the patches, and scaled to its own highest value: two "
        "maps do not compare in strength. The caption and the partner are right ones, whether the model finds them or not."
    )
    figure = Figure([(figures / "attention.png", alt)], details=captions)
    return [Section("Where the two tokens look", [text, figure], short=True)]


def similarities(table: pd.DataFrame, figures: Path) -> Section:
    """Show a histogram for each task and data set."""
    pictures: list[tuple[Path, str]] = []
    for task in TASKS.values():
        for dataset, part in table[table["task"] == task.name].groupby("dataset", sort=False):
            path, part = figures / f"similarities_{task.name}_{len(pictures)}.png", part.sort_values("low")
            draw_similarities(title := f"{task.short}, {dataset}", part, path)
            same, others = part["matches"].sum(), part["others"].sum()
            alt = f"Histogram of the similarities of {same:,} pairs of one person and {others:,} of two: {title}"
            pictures.append((path, alt))
    text = (
        "Cosines (or what re-ranking makes of them) of all queries with the gallery that the protocol gives them. The less the "
        "two shapes overlap, the better one threshold would do. Each shape is in percent of its own pairs, and there are far "
        "more of other people: a small overlap is many wrong pairs."
    )
    return Section("Similarities of right and wrong pairs", [text, Figure(pictures)])


def by_camera(scores: pd.DataFrame) -> list[Section]:
    """Tabulate I2I figures by the camera of the query; no section if no camera is known."""
    if scores["camid"].max() < 0:
        return []
    rows = [_row(str(camera), figures) for camera, figures in figures_by(scores, "camid").iterrows()]
    table = Table(["camera", "R1, percent", "mAP, percent", "queries"], rows)
    return [Section("Image to image by camera", ["By the camera of the query; rows with few queries are rough.", table])]


def by_attribute(lists: pd.DataFrame, scores: pd.DataFrame, tables: Manifests, figures: Path) -> list[Section]:
    """Show what the T2I queries that fail have right nevertheless; no section if the set does not say what people wear."""
    attributes = read_attributes(tables, lists["dataset"].iloc[0])
    if attributes.empty:
        return []
    first = first_found(lists, scores, tables, T2I)
    blocks: list[str | Table | Figure | Definitions] = []
    if len(shared := agreement(first, attributes, tables)):
        draw_agreement(shared.rename(index=_words), figures / "attributes.png")
        alt = "Bars: how often the wrong picture found first shares an attribute with the person described; marks: chance"
        rows = [
            [_words(name), f"{row.shared:.1f}", f"{row.chance:.1f}", f"{row.shared - row.chance:+.1f}"]
            for name, row in shared.iterrows()
        ]
        blocks += [
            f"Of the {len(first):,} captions, {int(shared['num_wrong'].iloc[0]):,} find a wrong person first. Where the bar is "
            "far beyond the mark, the attribute was found, and something else was confused; where it ends near the mark, "
            "nothing shows that it was used. A caption does not name every attribute. The bag is that of the picture, all else "
            "is of the person.",
            Figure([(figures / "attributes.png", alt)]),
            Table(["attribute", "shared, percent", "by chance", "difference"], rows, "The same in numbers", fold=True),
        ]
    counts = confusion(first, attributes, _COLOUR)
    draw_confusion(counts, "upper garment described", "upper garment found first", figures / "confusion.png")
    total, right = counts.to_numpy().sum(), np.trace(counts.to_numpy())
    alt = f"Heat map of the upper garment's colour, described against found first: the same for {right:,} of {total:,} captions"
    caption = (
        "Colour of the upper garment: of the person described, and in the picture found first, right pictures among them. The "
        "numbers are captions; the darker, the more of a row."
    )
    rough = "In the table, rows with few captions are rough, for these are of one or two people."
    blocks += [Figure([(figures / "confusion.png", alt)], caption), rough, _attribute_table(first, attributes)]
    return [Section("Text to image by attribute", blocks)]


def _row(name: str, figures: pd.Series) -> list[str]:
    return [name, f"{figures['rank1']:.1f}", f"{figures['mAP']:.1f}", f"{figures['num_queries']:,.0f}"]


def _attribute_table(first: pd.DataFrame, attributes: pd.DataFrame) -> Table:
    known = first[first["asked"].isin(attributes.index)]
    rows = []
    for name in attributes:
        table = figures_by(known.assign(value=attributes.loc[known["asked"], name].to_numpy()), "value")
        for value, figures in table.sort_values("num_queries", ascending=False, kind="stable").iterrows():
            rows.append([_words(name), *_row(value, figures)])
    header = ["attribute", "value", "R1, percent", "mAP, percent", "captions"]
    return Table(header, rows, "Figures by attribute and value", fold=True, num_left=2)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("bottom", "lower garment").replace("top", "upper garment")


def projection(tokens: dict, tables: Manifests, seed: int, figures: Path) -> list[Section]:
    """Show both tokens of the same pictures in the plane; no section of fewer than four."""
    pids = tables.images.loc[tokens["image_ids"], "pid"].to_numpy()
    rows = np.flatnonzero(pids >= 0)
    rows = rows[np.linspace(0, len(rows) - 1, min(_NUM_PROJECTED, len(rows))).round().astype(int)]
    if len(rows) < 4:
        return []
    pictures = []
    for task in TASKS.values():
        path = figures / f"projection_{task.name}.png"
        draw_projection(f"{task.short} token, v_{task.name}", project(tokens[task.name][rows], seed), pids[rows], path)
        pictures.append((path, f"Map of {len(rows)} test pictures by their {task.short} token, coloured by person"))
    text = (
        f"{len(rows)} test pictures in the plane (PCA, then t-SNE, seed {seed}), by each class token. The twelve people with "
        "most pictures have a colour and a shape; the others are grey. Near is alike; distances between far groups mean little."
    )
    return [Section("The gallery as the two tokens see it", [text, Figure(pictures)])]
