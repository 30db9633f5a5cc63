"""What syntax trees say of the code: names, functions, string literals, imports."""

import ast
from collections.abc import Iterator
from pathlib import Path


def parse(file: Path) -> ast.Module:
    """Parse a file of Python."""
    return ast.parse(file.read_text(encoding="utf-8"))


def public_names(tree: ast.Module) -> set[str]:
    """Collect the names without underscore that a module defines (not those that it imports)."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names |= {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return {name for name in names if not name.startswith("_")}


def function_lines(tree: ast.Module) -> dict[str, int]:
    """Count the lines of each function, methods and inner functions included, without its decorators."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f"{node.name}, line {node.lineno}": node.end_lineno - node.lineno + 1 for node in functions}


def string_literals(tree: ast.Module) -> set[str]:
    """Collect the string constants, those in annotations included."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that are imported, also by scripts in strings; a relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            try:
                script = ast.parse(node.value)
            except SyntaxError:  # prose
                continue
            yield from imported_names(script)
