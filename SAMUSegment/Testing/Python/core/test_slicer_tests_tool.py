"""tools/slicer_tests.py with a program in Slicer's place that does with --python-code what Slicer does."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[4] / "tools" / "slicer_tests.py"
FAKE = """#!{python}
import sys, traceback, types, unittest
def runUnitTest(path, name):
    sys.path.extend(path)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestLoader().loadTestsFromName(name))
    if not result.wasSuccessful():
        raise Exception
testing = types.ModuleType("slicer.testing")
testing.runUnitTest = runUnitTest
sys.modules["slicer"] = types.ModuleType("slicer")
sys.modules["slicer"].testing = sys.modules["slicer.testing"] = testing
assert "--testing" in sys.argv and "--additional-module-path" in sys.argv
try:
    exec(sys.argv[sys.argv.index("--python-code") + 1])
except Exception:
    sys.exit(1)
"""
HEAD = "import sys, time, traceback, unittest\nclass T(unittest.TestCase):\n    def test(self):\n        "
TESTS = {
    "good": HEAD + "self.assertTrue(True)\n",
    "bad": HEAD + "self.assertTrue(False)\n",
    # What PythonQt does with an exception in a callback.
    "callback": HEAD + "\n        try: 1/0\n        except ZeroDivisionError: traceback.print_exc()\n",
    "empty": "import unittest\n",
    "broken": "import no_such_module\n",
    "slow": HEAD + "time.sleep(60)\n",
}


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("slicer_tests", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "CMakeLists.txt").write_text(f"# set(x)\nset(SLICER_TESTS\n  {' '.join(TESTS)}\n  )\n")
    for name, text in TESTS.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(module, "LIST", tmp_path / "CMakeLists.txt")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


@pytest.fixture
def slicer(tmp_path):
    if os.name == "nt":
        pytest.skip("a script cannot stand in for Slicer.exe")
    path = tmp_path / "Slicer"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_the_list_is_the_one_of_cmake(tool):
    assert tool.registered() == ["SAMUSegment", *TESTS]


@pytest.mark.parametrize(
    "name, problem",
    [
        ("good", ""),
        ("bad", "exit code 1"),
        ("callback", "a traceback in the output"),
        ("empty", "it holds no test"),
        ("broken", "exit code 1"),
        ("slow", "not finished after 5 s"),
    ],
)
def test_what_counts_as_a_failure(tool, slicer, capsys, name, problem):
    # Under load the interpreter alone takes seconds to start.
    assert tool.run(slicer, name, [], 5 if name == "slow" else 120) == problem


def test_exit_codes(tool, slicer, capsys, tmp_path):
    assert tool.main(["--slicer", slicer, "good"]) == 0
    assert "1 of 1 passed" in capsys.readouterr().out
    assert tool.main(["--slicer", slicer, "good", "bad"]) == 1
    assert "FAILED bad: exit code 1" in capsys.readouterr().out
    assert tool.main(["--slicer", str(tmp_path / "absent"), "good"]) == 1
    assert "cannot be started" in capsys.readouterr().out


def test_wrong_calls(tool, slicer, monkeypatch, capsys):
    monkeypatch.delenv(tool.EXECUTABLE_VARIABLE, raising=False)
    for argv in (["good"], ["--slicer", slicer, "unheard-of"]):
        with pytest.raises(SystemExit) as stop:
            tool.main(argv)
        assert stop.value.code == 2
