"""Pictures of what a model finds: rank lists, maps of the class tokens, similarities, features in the plane, confusions."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from hpl.pictures import decode_picture
from hpl.reports.figures import DPI, GREEN, GREY, PALETTE, PANEL, PERSON_SIZE, RED, save_png, tile

_GAP, _BORDER = 8, 5  # pixels between two tiles, and of the frame around one
_NUM_COLOURED = 12  # people with a colour of their own in a projection
_MARKERS = "os"
_MAPPED = (104, 208)  # width, height of a picture under its map


class _Canvas:
    """Pixels with text on them: matplotlib's letters, at places that we choose."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self.figure = plt.figure(figsize=(width / DPI, height / DPI))
        self.axis = self.figure.add_axes((0, 0, 1, 1))
        self.axis.axis("off")

    def paste(self, picture: np.ndarray, x: int, y: int, frame: str | None = None) -> None:
        """Put a picture, uint8 height x width x 3, with its top left corner at (x, y), and a frame of a colour around it."""
        height, width = picture.shape[:2]
        if frame:
            colour = [int(frame[start : start + 2], 16) for start in (1, 3, 5)]
            self.pixels[y - _BORDER : y + height + _BORDER, x - _BORDER : x + width + _BORDER] = colour
        self.pixels[y : y + height, x : x + width] = picture

    def write(self, text: str, x: int, y: int, size: int, ha: str = "left", **options: Any) -> None:
        """Put text, its top left corner at (x, y), with letters of about `size` pixels."""
        letters = size * 72 / DPI
        self.axis.text(x, y, text, va="top", ha=ha, parse_math=False, fontsize=letters, linespacing=1.25, **options)

    def save(self, path: Path) -> None:
        """Write and close."""
        height, width = self.pixels.shape[:2]
        self.axis.imshow(self.pixels, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
        self.axis.set(xlim=(0, width), ylim=(height, 0))
        save_png(self.figure, path)


def draw_contact_sheet(rows: list[tuple[str, list[list[Path]]]], path: Path) -> None:
    """Draw some people, each with some pictures: a label, and below it the people side by side, a row each."""
    widths = [sum(len(files) * PERSON_SIZE[0] for files in people) + 2 * _GAP * (len(people) - 1) for _, people in rows]
    letters, top = 17, 30
    canvas, y = _Canvas(max(widths) + 2 * _GAP, len(rows) * (top + PERSON_SIZE[1] + 2 * _GAP)), 0
    for label, people in rows:
        canvas.write(label, _GAP, y + 4, letters)
        x = _GAP
        for files in people:
            for file in files:
                canvas.paste(tile(file), x, y + top)
                x += PERSON_SIZE[0]
            x += 2 * _GAP
        y += top + PERSON_SIZE[1] + 2 * _GAP
    canvas.save(path)


def draw_rank_lists(groups: dict[str, list[dict]], length: int, path: Path) -> None:
    """Draw rank lists under headings: a query (picture or sentence), then what was found, framed and marked as right or wrong.

    Args:
        groups: heading -> rows. A row has `query` (a file, or None), `text` (the sentence, or what is known of the picture) and
            `found`: a list of (file, similarity, match).
        length: pictures of a list at most.
    """
    by_picture = any(row["query"] for rows in groups.values() for row in rows)
    step, letters = PERSON_SIZE[0] + _GAP + 2 * _BORDER, 17
    width = step * (length + by_picture) + _GAP * (1 + 2 * by_picture)
    texts = {id(row): textwrap.wrap(row["text"], int(width / letters / 0.56)) for rows in groups.values() for row in rows}
    heading, line, strip = 44, int(letters * 1.3), PERSON_SIZE[1] + 2 * _BORDER + 26
    heights = [heading + sum(line * len(texts[id(row)]) + strip + 22 for row in rows) for rows in groups.values()]
    canvas, y = _Canvas(width, sum(heights)), 0
    for title, rows in groups.items():
        canvas.write(title, _GAP, y + 12, 21, weight="bold")
        y += heading
        for row in rows:
            canvas.write("\n".join(texts[id(row)]), _GAP, y, letters)
            y += line * len(texts[id(row)]) + 4
            x = _GAP + _BORDER
            if row["query"]:
                canvas.paste(tile(row["query"]), x, y + _BORDER, GREY)
                canvas.write("query", x + PERSON_SIZE[0] // 2, y + PERSON_SIZE[1] + 2 * _BORDER + 3, 15, ha="center", color=GREY)
                x += step + 2 * _GAP
            for file, similarity, match in row["found"][:length]:
                colour = GREEN if match else RED
                canvas.paste(tile(file), x, y + _BORDER, colour)
                label = f"{'✓' if match else '✗'} {similarity:.2f}"
                canvas.write(label, x + PERSON_SIZE[0] // 2, y + PERSON_SIZE[1] + 2 * _BORDER + 3, 15, ha="center", color=colour)
                x += step
            y += strip + 18
    canvas.save(path)


def draw_attention(rows: list[tuple[Path, Path, str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw a picture, the maps of v_t2i and v_i2i over it, the person's other picture and the caption, a row each (paper Fig. 4).

    Args:
        rows: picture, other picture, caption, maps of values 0..1.
    """
    letters, top, step = 18, 40, _MAPPED[0] + _GAP
    text_at = 4 * step + 3 * _GAP
    canvas = _Canvas(text_at + 360, top + (_MAPPED[1] + 2 * _GAP) * len(rows))
    for number, title in enumerate(("picture", "v_t2i", "v_i2i", "partner")):
        canvas.write(title, _GAP + number * step + _MAPPED[0] // 2, 12, letters, ha="center", weight="bold")
    for number, (file, partner, caption, t2i, i2i) in enumerate(rows):
        y = top + (_MAPPED[1] + 2 * _GAP) * number
        picture, other = (
            np.asarray(Image.fromarray(decode_picture(each)).resize(_MAPPED, Image.Resampling.BICUBIC))
            for each in (file, partner)
        )
        for column, shown in enumerate((picture, _overlay(picture, t2i), _overlay(picture, i2i), other)):
            canvas.paste(shown, _GAP + column * step, y)
        lines = textwrap.wrap(caption, 34)
        lines = lines[:8] + ["..."] if len(lines) > 9 else lines
        canvas.write("\n".join(lines), text_at, y, letters)
    canvas.save(path)


def _overlay(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Lay the colours of a map that is stretched over it upon a picture in grey."""
    height, width = picture.shape[:2]
    smooth = np.asarray(Image.fromarray(weights.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    grey = picture.mean(axis=2, keepdims=True) * 0.75 + 45
    share = 0.2 + 0.5 * smooth[..., None]
    return (grey * (1 - share) + 255 * colormaps["plasma"](smooth)[..., :3] * share).round().astype(np.uint8)


def draw_similarities(title: str, table: pd.DataFrame, path: Path) -> None:
    """Draw a histogram of the similarities of pairs of one person and of two, each in percent of its pairs.

    Args:
        table: columns low, high (edges of a bin), matches, others (counts).
    """
    figure, axis = plt.subplots(figsize=PANEL, layout="constrained")
    edges = np.append(table["low"].to_numpy(), table["high"].to_numpy()[-1])
    middles = (edges[:-1] + edges[1:]) / 2
    for name, label, colour, filled in (("others", "other people", RED, True), ("matches", "same person", PALETTE[0], False)):
        counts = table[name].to_numpy()
        if not counts.any():
            continue
        mean = np.average(middles, weights=counts)
        label = f"{label}: {counts.sum():,} pairs, mean {mean:.3f}"
        share, alpha = 100 * counts / counts.sum(), 0.45 if filled else 1
        axis.stairs(share, edges, fill=filled, alpha=alpha, color=colour, linewidth=2, label=label)
        axis.axvline(mean, color=colour, linestyle="--", linewidth=1.2)
    used = np.flatnonzero((table["matches"] + table["others"]).to_numpy())
    axis.set(
        title=title,
        xlabel="similarity of query and gallery picture",
        ylabel="% of the pairs",
        xlim=(edges[used[0]], edges[used[-1] + 1]),
    )
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    save_png(figure, path)


def project(features: np.ndarray, seed: int) -> np.ndarray:
    """Project features n x D onto the plane, n x 2: PCA to 50 dimensions, then t-SNE from the first two, in one thread."""
    with threadpool_limits(1):  # the same bytes again
        count = min(50, *features.shape)
        reduced = PCA(count, svd_solver="full").fit_transform(np.asarray(features, np.float64))
        return TSNE(2, init="pca", perplexity=min(30, (len(features) - 1) / 3), random_state=seed).fit_transform(reduced)


def draw_projection(title: str, places: np.ndarray, pids: np.ndarray, path: Path) -> None:
    """Draw features in the plane. The people with most pictures have a colour and a shape of their own; the others are grey.

    Args:
        places: n x 2.
        pids: n; 0 is nobody.
    """
    people = pd.Series(pids[pids > 0]).value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable").index
    figure, axis = plt.subplots(figsize=(PANEL[0], PANEL[0]), layout="constrained")
    grey = ~np.isin(pids, people[:_NUM_COLOURED])
    axis.scatter(places[grey, 0], places[grey, 1], s=9, color="#c4c4c4", linewidths=0)
    for number, pid in enumerate(people[:_NUM_COLOURED]):
        (x, y), colour, marker = places[pids == pid].T, PALETTE[number % len(PALETTE)], _MARKERS[number // len(PALETTE)]
        axis.scatter(x, y, s=34, edgecolors="black", linewidths=0.5, color=colour, marker=marker)
    axis.set(title=title, xticks=[], yticks=[])
    save_png(figure, path)


def draw_agreement(table: pd.DataFrame, path: Path) -> None:
    """Draw how often the wrong person found first shares an attribute: a bar, and a mark where chance would end it.

    Args:
        table: as hpl.reports.breakdown.agreement returns it, with the names that are shown.
    """
    figure, axis = plt.subplots(figsize=(PANEL[0] + 1, 0.9 + 0.27 * len(table)), layout="constrained")
    places = np.arange(len(table))
    axis.barh(places, table["shared"], color=PALETTE[0], height=0.68, label="wrong picture found first")
    axis.scatter(
        table["chance"], places, marker="d", s=42, color="#e69f00", edgecolors="black", linewidths=0.7, label="chance", zorder=3
    )
    axis.set(yticks=places, yticklabels=table.index, xlim=(0, 100), xlabel="% that share the attribute")
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    save_png(figure, path)


def draw_confusion(counts: pd.DataFrame, asked: str, found: str, path: Path) -> None:
    """Draw a square of counts as a heat map of row percentages, with the counts written in."""
    share = counts.to_numpy() / np.maximum(counts.sum(axis=1).to_numpy()[:, None], 1)
    side = 1.5 + 0.27 * len(counts)
    figure, axis = plt.subplots(figsize=(side, side - 0.1), layout="constrained")
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts.to_numpy() > 0):
        colour = "white" if share[row, column] > 0.55 else "black"
        axis.text(column, row, counts.iat[row, column], ha="center", va="center", fontsize=8, color=colour)
    places = np.arange(len(counts))
    axis.set(xticks=places, yticks=places, xlabel=found, ylabel=asked)
    axis.set_xticklabels(counts.columns, rotation=90, fontsize=9)
    axis.set_yticklabels(counts.index, fontsize=9)
    save_png(figure, path)
