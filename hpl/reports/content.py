"""What a report says, once, and its forms: Markdown beside its pictures, an HTML page that holds them, and LaTeX for tables.

A block is a paragraph (str), a Table, a Figure, or Definitions. In a paragraph, which we alone write, `code` and [text](target)
are marked up. Everything else may hold a user's words, and is shown as it is.
"""

import base64
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from hpl.files import HplError, write_text
from hpl.tasks import Task

FIGURE_LABELS = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "mAP": "mAP", "mINP": "mINP", "rsum": "R-sum"}
MAIN_FIGURES = ("rank1", "mAP")  # those with intervals
BUNDLED = "bundled"  # the profile of the synthetic data set, whose figures stand in the project's own pages
MINUS = "\u2212"
_SETTINGS = {  # of evaluate, off by default
    "rerank": "re-ranked",
    "flip": "with mirror images",
    "neck": "I2I behind the neck",
    "both_tokens": "I2I by both tokens",
}


def figure_labels(task: Task) -> dict[str, str]:
    """Name the figures of a task as its tables do, in their order; R-sum is of tasks whose papers print one."""
    return {name: label for name, label in FIGURE_LABELS.items() if name != "rsum" or task.summed_ranks}


def signed(number: float, digits: int = 2) -> str:
    """Show a difference with its sign; what rounds to zero has a plus."""
    return f"{number:+z.{digits}f}".replace("-", MINUS)


def settings_words(settings: dict) -> str:
    """Say what of evaluate is on beyond the plain protocol: "", or ", re-ranked" and the like, to stand behind a name.

    Args:
        settings: name -> whether it is on; others are not looked at.
    """
    return "".join(f", {word}" for name, word in _SETTINGS.items() if settings.get(name))


def profile_words(profile: str) -> str:
    """Name a profile, and say so if its pictures are drawn ones."""
    return profile + (" (the synthetic data set: these figures say nothing about real cameras)" if profile == BUNDLED else "")


def interval_of(figures: dict, name: str) -> tuple[float, float] | None:
    """Find both ends of a figure's interval as metrics.json has them, if it has them."""
    low, high = (figures.get(f"{name}_ci_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def with_interval(figures: dict, name: str) -> str:
    """Show a figure in percent, behind it its interval, if it has one; "-" without the figure."""
    if name not in figures:
        return "-"
    ends = interval_of(figures, name)
    return f"{figures[name]:.2f}" + (f" ({ends[0]:.1f}-{ends[1]:.1f})" if ends else "")


def difference_words(difference: float, interval: tuple[float, float] | None, digits: int) -> str:
    """Show a difference in points of percent, behind it its interval, if it has one, to a number of digits."""
    return signed(difference) + (f" ({' to '.join(signed(end, digits) for end in interval)})" if interval else "")


def established(differences: dict[str, tuple[float, tuple[float, float] | None]]) -> str:
    """List the differences (name -> mean, interval) whose interval leaves zero out, then those of no established sign."""
    sure = {name: mean for name, (mean, ends) in differences.items() if ends and not ends[0] <= 0 <= ends[1]}
    shown = ", ".join(f"{name} {signed(mean)}" for name, mean in sure.items())
    unsure = ", ".join(name for name in differences if name not in sure)
    return "; ".join(([shown] if shown else []) + ([f"not established: {unsure}"] if unsure else []))


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `num_left` columns are aligned left, the others right. `fold`: shown on demand, in HTML.
    `minor`: rows that begin so belong to the one above them, and are set smaller in HTML."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    fold: bool = False
    num_left: int = 1
    minor: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """PNG files with the text that stands for each, and what is said below them."""

    pictures: list[tuple[Path, str]]
    caption: str = ""
    details: list[str] = field(default_factory=list)  # lines of a numbered list, in the HTML page alone


@dataclass(frozen=True)
class Definitions:
    """Names and values."""

    values: dict[str, str]


@dataclass(frozen=True)
class Section:
    """A heading and its blocks. `short`: it stands in the Markdown form too."""

    title: str
    blocks: list[str | Table | Figure | Definitions]
    short: bool = False


def plain(text: str) -> str:
    """Escape any text as Markdown that shows it unchanged, on one line."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def markdown(block: str | Table | Figure | Definitions, folder: Path = Path()) -> str:
    """Render a block as Markdown of a file in `folder`."""
    if isinstance(block, str):
        return block
    if isinstance(block, Definitions):
        return "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in block.values.items())
    if isinstance(block, Table):
        header, *rows = ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in (block.header, *block.rows)]
        rule = "|" + "---|" * block.num_left + "---:|" * (len(block.header) - block.num_left)
        text = "\n".join([header, rule, *rows])
        return f"{plain(block.caption)}\n\n{text}" if block.caption else text
    pictures = "\n".join(f"![{plain(alt)}]({file.relative_to(folder).as_posix()})" for file, alt in block.pictures)
    return f"{pictures}\n\n{plain(block.caption)}" if block.caption else pictures


def markdown_page(title: str, sections: list[Section], folder: Path) -> str:
    """Render the short sections as one Markdown file in `folder`."""
    parts = [f"# {title}"]
    for section in sections:
        if section.short:
            parts += [f"## {section.title}", *(markdown(block, folder) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """Render a tabular for \\input; needs the package booktabs alone."""
    shown = pd.DataFrame(table.rows, columns=table.header).style.hide(axis="index").format(escape="latex")
    columns = "@{}l" + "r" * (len(table.header) - 1) + "@{}"
    text = shown.format_index(escape="latex", axis=1).to_latex(hrules=True, column_format=columns)
    return text.translate(str.maketrans({"±": r"$\pm$", "\u2020": r"\dag{}", MINUS: "$-$", "<": "$<$"}))


def write_tables(document: Path, name: str, text: str) -> None:
    """Put `text` between the marks of `name` in a Markdown file; a file without such marks stays as it is.

    Raises:
        HplError: the first mark has no second one.
    """
    content = document.read_bytes().decode()
    if start := re.search(rf"<!-- {name}: written by the \w+ stage -->\n", content):
        end = content.find(mark := f"<!-- end of {name} -->", start.end())
        if end < 0:
            raise HplError(f"{document}: expected `{mark}` after `{start[0].strip()}`")
        write_text(document, f"{content[: start.end()]}{text}\n{content[end:]}")


def html(block: str | Table | Figure | Definitions) -> str:
    """Render a block as HTML, with its pictures inside."""
    return getattr(_TEMPLATE.module, type(block).__name__)(block)


def html_page(title: str, sections: list[Section], foot: str) -> str:
    """Render all sections as one page that needs no other file, no network and no script; its policy lets none in.

    Args:
        foot: a paragraph at the end.
    """
    return _TEMPLATE.module.page(title, sections, foot)  # type: ignore[attr-defined]  # the macros are its attributes


def _marked_up(text: str) -> Markup:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return Markup(re.sub(r"\[([^\]]+)\]\(([^)\"]+)\)", r'<a href="\2">\1</a>', text))


def _image(file: Path, alt: str) -> Markup:
    with Image.open(file) as image:
        width, height = image.size
    data = base64.b64encode(file.read_bytes()).decode()
    return Markup('<img src="data:image/png;base64,{}" width="{}" height="{}" alt="{}">').format(data, width, height, alt)


_ENVIRONMENT = Environment(autoescape=True, keep_trailing_newline=True)
_ENVIRONMENT.filters |= {"html": html, "image": _image, "marked_up": _marked_up}
_ENVIRONMENT.filters["anchor"] = lambda title: re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
_TEMPLATE = _ENVIRONMENT.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
