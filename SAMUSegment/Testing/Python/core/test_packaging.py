"""What is built into the Slicer extension: CMake's lists against the tree, index entry, icons, CI."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[4]
MODULE = REPOSITORY / "SAMUSegment"
SLICER_TESTS = MODULE / "Testing" / "Python" / "slicer"
# Made by training and committed last; a checkout without them runs all tests but builds no extension.
TRAINED = {"Resources/Models/samu.npz", "Resources/Models/model-card.md"}
NOT_IN_SLICER = ("training", "evaluation", "demo")
# The index refuses a checkout, history included, above 100 MB.
LARGEST_TREE = 50e6
LARGEST_PICTURE = 150_000
# Schema 1.0.2 of Slicer's extensions catalog: required keys, and all keys with their types.
REQUIRED = {"$schema", "category", "scm_url"}
TYPES = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "tier": int,
}


def tracked(folder):
    """Files below a folder as POSIX paths relative to it; without git, what lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "."], cwd=folder, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return {name for name in listed.stdout.split("\0") if name}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name and ".egg-info" not in name}


def commands(path):
    """[(command in lower case, [arguments])] of a CMake file, variables that it sets filled in."""
    text = re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))
    found, values = [], {}
    for name, inner in re.findall(r'(\w+)\s*\(((?:"[^"]*"|[^()"])*)\)', text):
        arguments = []
        for quoted, word in re.findall(r'"([^"]*)"|([^\s"]+)', inner):
            text = word or quoted
            filled = re.sub(r"\$\{(\w+)\}", lambda m: ";".join(values.get(m[1], [m[0]])), text)
            arguments += filled.split(";") if word else [filled]
        if name.lower() == "set":
            values[arguments[0]] = arguments[1:]
        found.append((name.lower(), arguments))
    return found


def only(path, name):
    """The arguments of the one command of that name."""
    (arguments,) = [arguments for command, arguments in commands(path) if command == name.lower()]
    return arguments


def extension(variable):
    """The value of an EXTENSION_ variable in the top CMakeLists.txt."""
    (value,) = [
        arguments[1]
        for command, arguments in commands(REPOSITORY / "CMakeLists.txt")
        if command == "set" and arguments[0] == f"EXTENSION_{variable}"
    ]
    return value


def scripted_module(path):
    """NAME, SCRIPTS, RESOURCES and the options of slicerMacroBuildScriptedModule in a file."""
    arguments, parts, key = only(path, "slicerMacroBuildScriptedModule"), {}, None
    for word in arguments:
        if word in ("NAME", "SCRIPTS", "RESOURCES"):
            key = word
        elif word.startswith("WITH_"):
            parts[word] = key = True
        else:
            parts.setdefault(key, []).append(word)
    return parts


def assert_same(listed, present):
    assert len(listed) == len(set(listed)), "listed twice"
    assert set(listed) - present == set(), "listed, but not there"
    assert present - set(listed) == set(), "there, but not listed"


def index_entry():
    return json.loads((REPOSITORY / "SAMUSegment.json").read_text(encoding="utf-8"))


def core_scripts():
    return set(scripted_module(REPOSITORY / "samu_core" / "CMakeLists.txt")["SCRIPTS"])


def test_the_parser_reads_cmake(tmp_path):
    path = tmp_path / "CMakeLists.txt"
    path.write_text(
        "set(A x)\n# set(A no)\nset(B\n  ${A}.py\n  ${A}Lib/y.py\n  )\n"
        'make(NAME ${A}\n S ${B} "a (b) ${A};c")\n'
    )
    assert only(path, "MAKE") == ["NAME", "x", "S", "x.py", "xLib/y.py", "a (b) x;c"]


def test_every_file_of_the_module_is_listed():
    module, files = scripted_module(MODULE / "CMakeLists.txt"), tracked(MODULE)
    assert module["NAME"] == ["SAMUSegment"]
    assert module.get("WITH_GENERIC_TESTS") and "WITH_SUBDIR" not in module
    scripts = {name for name in files if name.endswith(".py") and not name.startswith("Testing/")}
    assert_same(module["SCRIPTS"], scripts)
    resources = {name for name in files if name.startswith("Resources/")}
    assert_same(module["RESOURCES"], resources | TRAINED)


def test_every_file_of_the_model_that_runs_in_slicer_is_listed():
    module, files = (
        scripted_module(REPOSITORY / "samu_core" / "CMakeLists.txt"),
        tracked(REPOSITORY / "samu_core"),
    )
    assert module["NAME"] == ["samu_core"]
    # Beside the module as a package; the generic tests would look for a Slicer module of that name.
    assert module.get("WITH_SUBDIR") and "WITH_GENERIC_TESTS" not in module
    scripts = {name for name in files if name.endswith(".py") and name.split("/")[0] not in NOT_IN_SLICER}
    assert_same(module["SCRIPTS"], scripts)


@pytest.mark.parametrize("name", sorted(core_scripts()))
def test_what_is_installed_imports_only_what_is_installed(name):
    tree = ast.parse((REPOSITORY / "samu_core" / name).read_text(encoding="utf-8"))
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            modules += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    left_out = tuple(f"samu_core.{folder}" for folder in NOT_IN_SLICER)
    assert not [module for module in modules if module.startswith(left_out)]


def test_the_self_tests_are_registered():
    listed = [
        arguments[1:]
        for command, arguments in commands(MODULE / "Testing" / "CMakeLists.txt")
        if command == "set" and arguments[0] == "SLICER_TESTS"
    ]
    files = tracked(SLICER_TESTS) if SLICER_TESTS.exists() else set()
    tests = {name[:-3] for name in files if is_unittest(SLICER_TESTS / name)}
    assert_same(listed[0], tests)


def is_unittest(path):
    """Whether a Python file defines a test case that unittest would find."""
    if path.suffix != ".py":
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bases = [ast.unparse(base) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    return any(base.endswith(("TestCase", "ScriptedLoadableModuleTest")) for base in bases)


def test_cmake_files_lead_to_each_other():
    top = commands(REPOSITORY / "CMakeLists.txt")
    folders = [arguments[0] for command, arguments in top if command == "add_subdirectory"]
    assert folders == ["samu_core", "SAMUSegment"]
    assert only(MODULE / "CMakeLists.txt", "add_subdirectory") == ["Testing"]
    names = [command for command, _ in top]
    # project() first, Slicer before the modules, packaging last.
    assert names.index("project") < names.index("find_package") < names.index("add_subdirectory")
    assert top[-1] == ("include", ["${Slicer_EXTENSION_CPACK}"])
    assert ("find_package", ["Slicer", "REQUIRED"]) in top


def test_the_index_entry_follows_the_schema():
    entry = index_entry()
    assert REQUIRED <= set(entry) <= set(TYPES)
    assert all(isinstance(entry[key], TYPES[key]) for key in entry)
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert 1 <= entry["tier"] <= 5
    assert b"\r" not in (REPOSITORY / "SAMUSegment.json").read_bytes()


def test_index_entry_and_cmake_agree():
    entry, (name, *_) = index_entry(), only(REPOSITORY / "CMakeLists.txt", "project")
    assert (REPOSITORY / f"{name}.json").exists() and not name.lower().startswith("slicer")
    assert entry["build_dependencies"] == extension("DEPENDS").split() == ["PyTorch"]
    assert entry["category"] == extension("CATEGORY")
    # slicerFunctionGenerateExtensionDescription would take a semicolon for the end of the text.
    assert ";" not in extension("DESCRIPTION")
    assert "not a medical device" in extension("DESCRIPTION")


def test_the_repository_has_one_address():
    address = index_entry()["scm_url"]
    assert re.fullmatch(r"https://[^/]+(/[^/]+)*/Slicer[^/]*", address), "the index wants Slicer + name"
    assert extension("HOMEPAGE") == address
    for variable in ("ICONURL", "SCREENSHOTURLS"):
        for url in extension(variable).split():
            assert url.startswith(f"{address}/raw/main/")
    files = [
        url[len(f"{address}/raw/main/") :]
        for variable in ("ICONURL", "SCREENSHOTURLS")
        for url in extension(variable).split()
    ]
    assert len(files) > 2 and set(files) <= set(tracked(REPOSITORY))


def test_the_pictures_are_those_that_the_tool_draws_small_and_shown_somewhere():
    tool = (REPOSITORY / "tools" / "draw_screenshots.py").read_text(encoding="utf-8")
    drawn = {f"docs/images/{name}" for name in re.findall(r'^    "([\w-]+\.png)":', tool, re.M)}
    committed = {name for name in tracked(REPOSITORY) if name.startswith("docs/images/views-")}
    assert committed == drawn and len(drawn) > 3
    shown = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown += (REPOSITORY / "docs" / "user-guide.md").read_text(encoding="utf-8")
    for name in drawn:
        assert Path(name).name in shown, f"{name} is nowhere to be seen"
        assert (REPOSITORY / name).stat().st_size < LARGEST_PICTURE, name
        assert (REPOSITORY / name).read_bytes().startswith(b"\x89PNG")


def test_the_repository_is_small_enough_for_the_index():
    names = tracked(REPOSITORY)
    sizes = {name: (REPOSITORY / name).stat().st_size for name in names if (REPOSITORY / name).exists()}
    assert sum(sizes.values()) < LARGEST_TREE
    assert not [name for name in names if "__pycache__" in name]


def test_the_icons_are_what_the_program_draws():
    spec = importlib.util.spec_from_file_location("draw_icons", REPOSITORY / "tools" / "draw_icons.py")
    icons = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(icons)
    drawings = icons.drawings()
    listed = scripted_module(MODULE / "CMakeLists.txt")["RESOURCES"]
    assert {name for name in listed if name.endswith(".png")} < {
        path.relative_to(MODULE if MODULE in path.parents else REPOSITORY).as_posix() for path in drawings
    }
    for path, pixels in drawings.items():
        difference = np.abs(icons.read_pixels(path).astype(int) - pixels)
        # One step of 255 for another processor's rounding.
        assert difference.max() <= 1, path.name
        assert pixels[..., 3].max() == 255 and pixels[..., 3].min() == 0
    assert icons.read_pixels(REPOSITORY / "SAMUSegment.png").shape == (128, 128, 4)


def test_the_ci_pins_its_actions_and_covers_three_systems():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert set(jobs) == {"lint", "headless", "slicer"}
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+[.\d]*", step["uses"]) for step in steps if "uses" in step)
    for job in ("headless", "slicer"):
        matrix = jobs[job]["strategy"]["matrix"]
        systems = matrix.get("os") or [entry["os"] for entry in matrix["include"]]
        assert {system.split("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}
    linux = {e["python"] for e in jobs["headless"]["strategy"]["matrix"]["include"] if "ubuntu" in e["os"]}
    assert {"3.9", "3.12"} <= linux
    # Every file that a step runs is there.
    for name in re.findall(r"tools/\w+\.py", "\n".join(step.get("run", "") for step in steps)):
        assert name in tracked(REPOSITORY)
