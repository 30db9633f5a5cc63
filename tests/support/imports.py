"""Which hpl modules a file imports, read from the source, directly and through others."""

import ast
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


def dependencies(stage_script: Path) -> list[str]:
    """What dvc.yaml has to name for a stage: its script and the modules it imports, but not empty package files."""
    files = all_imports(stage_script)
    kept = {
        file for file in files if any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf-8")).body)
    }
    return sorted(str(file.relative_to(ROOT)) for file in kept | {stage_script})
