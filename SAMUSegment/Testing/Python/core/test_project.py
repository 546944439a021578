"""Rules that hold for every file of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import samu_core

REPOSITORY = Path(__file__).resolve().parents[4]
FOLDERS = ("samu_core", "SAMUSegment", "benchmarks", "tools")
SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
LONGEST_FILE = 400
# What Slicer's own Python has without installing anything, apart from the standard library.
SLICER_HAS = {"slicer", "vtk", "qt", "ctk", "SegmentEditorEffects", "numpy", "SimpleITK"}
SLICER_HAS |= {"SAMUSegmentLib", "samu_core"}
TESTING = REPOSITORY / "SAMUSegment" / "Testing"
SLICER_SOURCES = [
    path for path in SOURCES if REPOSITORY / "SAMUSegment" in path.parents and TESTING not in path.parents
]
# The part of samu_core that runs inside Slicer, and what it may import there.
CORE_SOURCES = [
    path
    for path in SOURCES
    if REPOSITORY / "samu_core" in path.parents
    and path.relative_to(REPOSITORY).parts[1] not in ("training", "evaluation", "demo")
]
CORE_MAY_IMPORT = {"torch", "numpy", "SimpleITK", "samu_core"}
# torch is installed into Slicer later than the extension: what is needed before must not import it.
WITHOUT_TORCH = ("errors", "geometry", "resampling", "intensity", "io", "prediction", "prompt", "cli")


def name_of(path):
    return path.relative_to(REPOSITORY).as_posix()


def standard_library():
    # sys.stdlib_module_names exists from Python 3.10.
    names = getattr(sys, "stdlib_module_names", None)
    if names is None:
        pytest.skip("needs Python 3.10 to know the standard library's modules")
    return set(names)


def imported(nodes):
    """Top-level names of the absolute imports among AST nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def at_file_scope(tree):
    """Statements that run when the file is imported, guards for type checkers left out."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            for handler in getattr(node, "handlers", []):
                waiting += handler.body


def test_there_are_sources():
    assert {"samu_core/cli.py", "tools/environment.py"} <= {name_of(path) for path in SOURCES}
    assert SLICER_SOURCES and CORE_SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_valid_python_39_and_not_too_long(path):
    text = path.read_text(encoding="utf-8")
    ast.parse(text, filename=str(path), feature_version=(3, 9))
    assert len(text.splitlines()) < LONGEST_FILE


@pytest.mark.parametrize("path", SLICER_SOURCES, ids=name_of)
def test_slicer_files_import_only_what_slicer_has(path):
    allowed = standard_library() | SLICER_HAS
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert set(imported(at_file_scope(tree))) <= allowed


@pytest.mark.parametrize("path", CORE_SOURCES, ids=name_of)
def test_the_core_imports_torch_numpy_and_simpleitk_only(path):
    allowed = standard_library() | CORE_MAY_IMPORT
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert set(imported(ast.walk(tree))) <= allowed


def test_what_slicer_needs_before_torch_does_not_import_it():
    modules = [f"samu_core.{name}" for name in WITHOUT_TORCH]
    assert all((REPOSITORY / "samu_core" / f"{name}.py").exists() for name in WITHOUT_TORCH)
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def project_table(name):
    """The lines of a table of pyproject.toml; tomllib exists from Python 3.11 only."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(rf"^\[{re.escape(name)}\]$(.*?)(?=^\[|\Z)", text, re.M | re.S).group(1)


def test_the_version_has_one_source():
    assert 'dynamic = ["version"]' in project_table("project")
    assert "samu_core.__version__" in project_table("tool.setuptools.dynamic")
    assert re.fullmatch(r"\d+\.\d+\.\d+", samu_core.__version__)


def test_every_package_is_listed():
    listed = set(re.findall(r'"(samu_core[\w.]*)"', project_table("tool.setuptools")))
    folders = {path.parent for path in (REPOSITORY / "samu_core").rglob("*.py")}
    present = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    assert listed == present | {"samu_core.models"}


def test_every_make_target_of_the_readme_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = set()
    for document in (REPOSITORY / "README.md", REPOSITORY / "docs" / "developer-guide.md"):
        named |= set(
            re.findall(r"(?:^|`)make (?:\w+=\S* )?([a-z][a-z-]*)", document.read_text(encoding="utf-8"), re.M)
        )
    assert {"demo", "test"} <= named <= targets


def test_relative_links_of_the_documents_lead_somewhere():
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_licence_is_whole():
    text = (REPOSITORY / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
