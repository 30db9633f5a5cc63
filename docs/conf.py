"""How Sphinx builds the site: `make docs`. No font, script or picture comes from another host."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import equations

project, author, release = "hpl", "the authors of hpl", metadata.version("hpl-reid")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

html_theme, html_title, html_copy_source, html_show_sphinx = "furo", "hpl", False, False
html_static_path, html_css_files = ["_static"], ["hpl.css"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints, autodoc_preserve_defaults = "signature", True
python_maximum_signature_line_length, add_module_names = 100, False
napoleon_numpy_docstring, napoleon_use_ivar = False, True

default_role = "code"  # docstrings put names in single backticks
# Names of other projects, whose pages are not asked for over the network, and private ones, which are on no page.
nitpick_ignore_regex = [(r"py:.*", r"(?!hpl\.).*|.*\._\w+")]


def as_plain_text(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape what stands for itself in our docstrings but means something in reStructuredText: `*`, `|` and a final `_`."""
    text = re.sub(r"^(\s+.*\n)(?=\S)", r"\1\n", "\n".join(lines), flags=re.M)  # an indented list ends with an empty line
    outside = re.split(r"(`[^`]*`)", text)
    outside[::2] = [re.sub(r"[*|]|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in outside[::2]]
    outside[2::2] = [re.sub(r"^(?=[\w\\])", r"\\ ", part) for part in outside[2::2]]
    lines[:] = "".join(outside).splitlines()


def write_reference(app: object) -> None:
    """Write docs/api/<room>.md, a page for each package and single module of hpl: a new module needs no line here."""
    here = Path(app.srcdir)
    (here / "api").mkdir(exist_ok=True)
    (here / "api" / "equations.txt").write_text(equations.table())
    for room in sorted((here.parent / "hpl").iterdir()):
        if room.name == "__init__.py" or not (room.suffix == ".py" or (room / "__init__.py").is_file()):
            continue
        files = [room] if room.suffix == ".py" else sorted(room.glob("*.py"))
        text = [f"# hpl.{room.stem}\n"]
        for file in files:
            name = ".".join(file.relative_to(here.parent).with_suffix("").parts)
            if file.stem == "__init__":
                text.append(ast.get_docstring(ast.parse(file.read_text())) + "\n")
                continue
            text += [f"## {name}\n"] if len(files) > 1 else []
            text.append(f"```{{eval-rst}}\n.. automodule:: {name}\n```\n")
        page = here / "api" / f"{room.stem}.md"
        if not page.is_file() or page.read_text() != "\n".join(text):
            page.write_text("\n".join(text))


def name_files_outside(app: object, page: str, source: list[str]) -> None:
    """Name a Markdown file that is no page of the site, such as a report, instead of linking to it."""
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)]+\.md)\)", r"\1 (`\2`)", source[0])


def setup(app: object) -> None:
    app.connect("source-read", name_files_outside)
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", as_plain_text, priority=100)  # before napoleon
