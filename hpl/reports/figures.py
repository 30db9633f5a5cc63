"""Pictures of a report, as PNG files with the same bytes for the same content."""

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from hpl.manifests.pictures import decode_picture

GREEN, RED, GREY = "#1a8f3c", "#d03030", "#666666"
TILE = (64, 128)  # width, height in pixels of a person in a contact sheet


def tile(file: Path) -> np.ndarray:
    """A picture file at the size of TILE, uint8 height x width x 3."""
    return np.asarray(Image.fromarray(decode_picture(file)).resize(TILE, Image.Resampling.BICUBIC))


def save_png(figure: Figure, path: Path) -> None:
    """Write and close a figure, without the metadata that names a version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_curves(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """One panel a table: every loss against the epoch, on a logarithmic scale; one that is zero throughout was switched off."""
    tables = {title: table.loc[:, (table != 0).any()] for title, table in tables.items()}
    drawn = {title: table for title, table in tables.items() if len(table.columns) > 1}
    figure, axes = plt.subplots(1, len(drawn), figsize=(4.2 * len(drawn), 3.4), squeeze=False, layout="constrained")
    for axis, (title, table) in zip(axes[0], drawn.items(), strict=True):
        for name in table.columns.drop(["epoch", "lr"], errors="ignore"):
            axis.plot(
                table["epoch"],
                table[name],
                label=name,
                linewidth=2.2 if name == "total" else 1.3,
                marker="." if len(table) < 20 else None,
            )
        axis.set(title=title, xlabel="epoch", ylabel="loss, mean of the epoch", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, ncol=2)
    save_png(figure, path)


def draw_contact_sheet(rows: list[tuple[str, list[Path]]], path: Path) -> None:
    """One row a person: the pictures left to right, the label above the row."""
    width = max(len(files) for _, files in rows)
    figure, axes = plt.subplots(
        len(rows),
        1,
        figsize=(width * 0.72, len(rows) * 1.72),
        squeeze=False,
        gridspec_kw={"hspace": 0.16, "left": 0.005, "right": 0.995, "top": 0.975, "bottom": 0.005},
    )
    for axis, (label, files) in zip(axes[:, 0], rows, strict=True):
        strip = np.full((TILE[1], TILE[0] * width, 3), 255, np.uint8)
        for position, file in enumerate(files):
            strip[:, TILE[0] * position : TILE[0] * (position + 1)] = tile(file)
        axis.imshow(strip)
        axis.set_title(label, fontsize=8, loc="left", pad=2)
        axis.axis("off")
    save_png(figure, path)


def draw_rank_lists(rows: list[dict], length: int, path: Path) -> None:
    """Rank lists, a row a query: the query (a picture file or a sentence), then the gallery pictures with green or red borders.

    Args:
        rows: each has `picture` (a file) or `caption` (a sentence), and `found`: a list of (file, similarity, match).
    """
    by_text = any("caption" in row for row in rows)
    first = 3.2 if by_text else 1.0
    figure, axes = plt.subplots(
        len(rows),
        length + 1,
        figsize=(0.8 * (length + first), 1.75 * len(rows)),
        squeeze=False,
        gridspec_kw={
            "width_ratios": [first] + [1] * length,
            "wspace": 0.08,
            "hspace": 0.14,
            "left": 0.01,
            "right": 0.99,
            "top": 0.97,
            "bottom": 0.01,
        },
    )
    for line, row in zip(axes, rows, strict=True):
        if "caption" in row:
            line[0].text(0.0, 0.5, textwrap.fill(row["caption"], 30), fontsize=7, va="center", parse_math=False)
            line[0].set(xlim=(0, 1), ylim=(0, 1))
            line[0].axis("off")
        else:
            _draw_picture(line[0], row["picture"], GREY, "query")
        for axis, (file, similarity, match) in zip(line[1:], row["found"], strict=False):
            _draw_picture(axis, file, GREEN if match else RED, f"{'✓' if match else '✗'} {similarity:.2f}")
        for axis in line[1 + len(row["found"]) :]:
            axis.axis("off")
    save_png(figure, path)


def _draw_picture(axis: plt.Axes, file: Path, colour: str, title: str) -> None:
    axis.imshow(tile(file))
    axis.set_title(title, fontsize=7, pad=2, color=colour)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2.5)


def draw_sizes(images: pd.DataFrame, token_lengths: pd.DataFrame, context_length: int, path: Path) -> None:
    """Histograms by data set: height and width of the pictures, and tokens of the captions, with the length at which they are cut.

    Args:
        images: columns dataset, height, width.
        token_lengths: columns dataset, tokens; may be empty.
    """
    panels = [("height", images["height"], images["dataset"]), ("width", images["width"], images["dataset"])]
    titles = {"height": "picture height, pixels", "width": "picture width, pixels", "tokens": "caption length, tokens"}
    if len(token_lengths):
        panels.append(("tokens", token_lengths["tokens"], token_lengths["dataset"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.2), layout="constrained")
    for axis, (name, values, datasets) in zip(axes, panels, strict=True):
        low, high = int(values.min()), int(np.quantile(values, 0.999)) + 1
        bins = np.linspace(low, high + 1, min(40, high + 2 - low))
        for dataset in sorted(datasets.unique()):
            own = values[datasets == dataset].clip(upper=high)
            axis.hist(own, bins=bins, weights=np.full(len(own), 100 / len(own)), histtype="step", linewidth=1.6, label=dataset)
        axis.set(xlabel=titles[name], ylabel="% of the data set")
        if name == "tokens":
            axis.axvline(context_length, color=GREY, linestyle=":", label=f"cut at {context_length}")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    save_png(figure, path)


def draw_pairs(pairs: list[tuple[str, Path, Path]], path: Path) -> None:
    """Pairs of pictures side by side, each pair under its title."""
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 3.0 * rows), squeeze=False, layout="constrained")
    gap = np.full((TILE[1], 6, 3), 255, np.uint8)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, left, right) in zip(axes.flat, pairs, strict=False):
        axis.imshow(np.concatenate([tile(left), gap, tile(right)], axis=1))
        axis.set_title(title, fontsize=7, parse_math=False)
    save_png(figure, path)
