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
from PIL import Image

from hpl.files import HplError, write_text
from hpl.tasks import Task

FIGURE_LABELS = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "mAP": "mAP", "mINP": "mINP", "rsum": "R-sum"}
MAIN_FIGURES = ("rank1", "mAP")  # those with intervals
BUNDLED = "bundled"  # the profile of the synthetic data set, whose figures stand in the project's own pages
MINUS = "\u2212"
_SETTINGS = {"rerank": "re-ranked", "flip": "with mirror images"}  # of evaluate, off by default


def figure_labels(task: Task) -> dict[str, str]:
    """Name the figures of a task as its tables do, in their order; R-sum is of tasks whose papers print one."""
    return {name: label for name, label in FIGURE_LABELS.items() if name != "rsum" or task.summed_ranks}


def signed(number: float, digits: int = 2) -> str:
    """Show a difference with its sign; what rounds to zero has a plus."""
    return f"{number:+z.{digits}f}".replace("-", MINUS)


def settings_words(settings: dict) -> str:
    """Say what of evaluate is on beyond the plain protocol: "", or ", re-ranked" and the like, to stand behind a name.

    Args:
        settings: name -> whether it is on; others than rerank and flip are not looked at.
    """
    return "".join(f", {word}" for name, word in _SETTINGS.items() if settings.get(name))


def profile_words(profile: str) -> str:
    """Name a profile, and say so if its pictures are drawn ones."""
    return profile + (" (the synthetic data set: these figures say nothing about real cameras)" if profile == BUNDLED else "")


def interval_of(figures: dict, name: str) -> tuple[float, float] | None:
    """Find both ends of a figure's interval as metrics.json has them, if it has them."""
    ends = [figures.get(f"{name}_ci_{end}") for end in ("low", "high")]
    return None if None in ends else tuple(ends)


def with_interval(figures: dict, name: str) -> str:
    """Show a figure in percent, behind it its interval, if it has one."""
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
    if isinstance(block, str):
        return f"<p>{_marked_up(block)}</p>"
    if isinstance(block, Definitions):
        pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in block.values.items())
        return f"<dl>{pairs}</dl>"
    if isinstance(block, Table):
        sides = [' class="left"'] * block.num_left + [""] * (len(block.header) - block.num_left)
        head = "".join(f'<th scope="col"{side}>{escape(cell)}</th>' for side, cell in zip(sides, block.header, strict=True))
        rows = "".join(
            ('<tr class="minor">' if row[0] in block.minor else "<tr>")
            + f'<th scope="row" class="left">{escape(row[0])}</th>'
            + "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides[1:], row[1:], strict=True))
            + "</tr>\n"
            for row in block.rows
        )
        label = escape(block.caption or block.header[0])
        caption = f"<caption>{escape(block.caption)}</caption>" if block.caption and not block.fold else ""
        table = f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"
        table = f'<div class="wide" role="region" aria-label="{label}" tabindex="0">{table}</div>'
        return f"<details><summary>{escape(block.caption)}</summary>{table}</details>" if block.fold else table
    pictures = "\n".join(_image(file, alt) for file, alt in block.pictures)
    details = f"<ol>{''.join(f'<li>{escape(line)}</li>' for line in block.details)}</ol>" if block.details else ""
    caption = f"<figcaption>{escape(block.caption)}{details}</figcaption>" if block.caption or details else ""
    panels = f'<div class="panels">{pictures}</div>' if len(block.pictures) > 1 else pictures
    return f"<figure>{panels}{caption}</figure>"


def _marked_up(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\[([^\]]+)\]\(([^)\"]+)\)", r'<a href="\2">\1</a>', text)


def _image(file: Path, alt: str) -> str:
    with Image.open(file) as image:
        width, height = image.size
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'


STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.55 system-ui, sans-serif; color: #1c1c1c; background: #fff;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d9d9d9; scroll-margin-top: .5rem; }
a { color: #0b57a4; }
code { background: #f1f1f1; padding: .05em .3em; border-radius: 3px; overflow-wrap: anywhere; }
nav ol { columns: 17rem; margin: .3rem 0; padding: 0; list-style-position: inside; }
nav li { padding: .2rem 0; break-inside: avoid; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 1rem 0; }
dt { color: #555; }
dd { margin: 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .4rem; color: #555; }
th, td { padding: .32rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: right; white-space: nowrap; }
.left { text-align: left; }
th:first-child { font-weight: 500; white-space: normal; min-width: 5.5rem; }
tbody th { position: sticky; left: 0; background: #fff; }
.minor > * { color: #555; font-size: .78rem; padding: .2rem .45rem; }
.minor > th:first-child { padding-left: 1.2rem; white-space: nowrap; }
thead th { border-bottom: 2px solid #999; font-weight: 600; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .3rem 0; }
figure { margin: 1.2rem 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .6rem 1rem; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .95rem; margin-top: .5rem; }
figcaption ol { margin: .5rem 0 0; padding-left: 1.6rem; }
footer { margin-top: 3rem; color: #555; font-size: .9rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def html_page(title: str, sections: list[Section], foot: str) -> str:
    """Render all sections as one page that needs no other file, no network and no script; its policy lets none in.

    Args:
        foot: a paragraph at the end.
    """
    anchors = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in sections]
    contents = "".join(
        f'<li><a href="#{anchor}">{escape(section.title)}</a></li>' for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "\n".join(
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(section.title)}</h2>\n'
        + "\n".join(html(block) for block in section.blocks)
        + "\n</section>"
        for anchor, section in zip(anchors, sections, strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
</header>
<main>
{body}
</main>
<footer>{html(foot)}</footer>
</body>
</html>
"""
