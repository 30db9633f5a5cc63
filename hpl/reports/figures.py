"""Pictures of a report, as PNG files with the same bytes for the same content."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from hpl.pictures import decode_picture

GREEN, RED, GREY = "#009e73", "#d55e00", "#666666"  # Okabe and Ito: colour-blind readers tell them apart
PALETTE = ["#0072b2", RED, GREEN, "#cc79a7", "#e69f00", "#56b4e9"]
DPI = 140
PANEL = (4.4, 3.8)  # inches of a figure that a phone shows alone in its row
PERSON_SIZE = (64, 128)  # width, height in pixels of a person in a contact sheet


def tile(file: Path) -> np.ndarray:
    """Read a picture file at PERSON_SIZE, uint8 height x width x 3."""
    return np.asarray(Image.fromarray(decode_picture(file)).resize(PERSON_SIZE, Image.Resampling.BICUBIC))


def save_png(figure: Figure, path: Path) -> None:
    """Write and close a figure as a PNG of 32 steps a channel, half the size, without metadata that names a version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]  # Agg, chosen above, has it
    plt.close(figure)
    Image.fromarray((pixels & 0xF8) | (pixels >> 5)).save(path, "PNG")


def draw_curves(title: str, table: pd.DataFrame, label: str, path: Path, logarithmic: bool = True) -> None:
    """Draw every column against the column epoch, without blank cells; a column that is zero throughout was switched off."""
    figure, axis = plt.subplots(figsize=PANEL, layout="constrained")
    names = [name for name in table.columns if name != "epoch" and (table[name].fillna(0) != 0).any()]
    for number, name in enumerate(names):
        known = table[table[name].notna()]
        colour, width = ("black", 2.4) if name == "total" else (PALETTE[number % len(PALETTE)], 1.5)
        dash, dot = ["-", "--", ":"][number // len(PALETTE) % 3], "." if len(known) < 20 else None
        axis.plot(known["epoch"], known[name], label=name, marker=dot, color=colour, linestyle=dash, linewidth=width)
    axis.set(title=title, xlabel="epoch", ylabel=label, yscale="log" if logarithmic else "linear")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    columns = 3 if max(map(len, names), default=0) < 20 else 1
    axis.legend(fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    save_png(figure, path)


def draw_sizes(images: pd.DataFrame, token_lengths: pd.DataFrame, context_length: int, path: Path) -> None:
    """Draw histograms by data set: height and width of the pictures, tokens of the captions, and where these are cut.

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
    """Draw pairs of pictures side by side, each pair under its title."""
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 3.0 * rows), squeeze=False, layout="constrained")
    gap = np.full((PERSON_SIZE[1], 6, 3), 255, np.uint8)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, left, right) in zip(axes.flat, pairs, strict=False):
        axis.imshow(np.concatenate([tile(left), gap, tile(right)], axis=1))
        axis.set_title(title, fontsize=7, parse_math=False)
    save_png(figure, path)
