"""The modules of hpl that a file imports, read from the source, directly and through others; and what dvc.yaml says of them."""

import ast
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def direct_imports(file: Path) -> set[Path]:
    """Files of this project that `file` imports by name, the packages on the way included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] in ("hpl", "stages"):
                for end in range(1, len(parts) + 1):
                    path = ROOT.joinpath(*parts[:end])
                    found |= {candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()}
    return found


def all_imports(file: Path) -> set[Path]:
    """Files of this project that run when `file` is imported, without `file` itself."""
    seen, waiting = set(), [file]
    while waiting:
        for found in direct_imports(waiting.pop()):
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return seen - {file}


def modules(file: Path) -> set[str]:
    """Name the hpl modules that run when a stage does, but not packages' files that hold a docstring alone."""
    kept = {
        found for found in all_imports(file) if any(not isinstance(node, ast.Expr) for node in ast.parse(found.read_text()).body)
    }
    return {str(found.relative_to(ROOT)) for found in kept}


def wrong_deps(deps: Collection[str], imported: Collection[str]) -> list[str]:
    """Say which imported modules no dep covers, a folder covering all below it, and which deps on hpl cover no imported
    module."""
    code = [dep.rstrip("/") for dep in deps if Path(dep).parts[0] == "hpl"]
    covers = {dep: {module for module in imported if module == dep or module.startswith(dep + "/")} for dep in code}
    uncovered = set(imported).difference(*covers.values())
    return [f"no dep: {module}" for module in sorted(uncovered)] + [f"not imported: {dep}" for dep in code if not covers[dep]]


def stages_of_rooms() -> dict[str, set[frozenset[str]]]:
    """Collect, for each folder of hpl, the different sets of stages that reach one of its modules."""
    reached = {script.stem: all_imports(script) for script in (ROOT / "stages").glob("*.py")}
    sets: dict[str, set[frozenset[str]]] = {}
    for module in (ROOT / "hpl").rglob("*.py"):
        room = module.relative_to(ROOT / "hpl").parts[0]
        stages = frozenset(stage for stage, files in reached.items() if module in files)
        if stages and module.name != "__init__.py" and room != module.name:
            sets.setdefault(room, set()).add(stages)
    return sets
