"""Runs the self-tests in a real Slicer, from the sources, without building the extension.

    python tools/slicer_tests.py --slicer /path/to/Slicer            all of them
    python tools/slicer_tests.py --slicer /path/to/Slicer NAME ...   these (see SAMUSegment/Testing)

Slicer prints an exception of a callback and goes on, so that the exit code alone proves little: a test
also fails when a traceback stands in its output, when no test ran, and when it takes too long. Only the
standard library is needed. On Linux without a display, put `xvfb-run -a` in front.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "SAMUSegment"
LIST = MODULE / "Testing" / "CMakeLists.txt"
FOLDER = MODULE / "Testing" / "Python" / "slicer"
EXECUTABLE_VARIABLE = "SLICER_EXECUTABLE"
SECONDS = 600


def registered() -> list[str]:
    """The tests that CMake registers too: that of the module's own file, then the list."""
    text = re.sub(r"(?m)#.*$", "", LIST.read_text(encoding="utf-8"))
    listed = re.search(r"set\(\s*SLICER_TESTS\b([^)]*)\)", text).group(1)
    return [MODULE.name, *listed.split()]


def command_of(slicer: str, test: str, options: list[str]) -> list[str]:
    """The command line that runs one test, as slicer_add_python_unittest makes it."""
    folders = [FOLDER.as_posix(), MODULE.as_posix()]
    code = f"import slicer.testing; slicer.testing.runUnitTest({folders}, '{test}')"
    # In the singular: the plural form takes all words that follow for paths.
    modules = ["--additional-module-path", MODULE.as_posix()]
    return [slicer, "--no-splash", "--testing", *options, *modules, "--python-code", code]


def verdict(code: int, output: str) -> str:
    """What is wrong with a finished run; empty if all is well."""
    ran = re.search(r"^Ran (\d+) tests? in", output, re.M)
    if ran is None:
        return f"no test ran (exit code {code})"
    if ran.group(1) == "0":
        return "it holds no test"
    if code != 0:
        return f"exit code {code}"
    if "Traceback (most recent call last)" in output:
        return "a traceback in the output"
    return ""


def run(slicer: str, test: str, options: list[str], seconds: float) -> str:
    """Run one test and show its output; returns what is wrong, or nothing."""
    print(f"=== {test}", flush=True)
    try:
        done = subprocess.run(
            command_of(slicer, test, options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        print((error.stdout or b"").decode(errors="replace"), flush=True)
        return f"not finished after {seconds:g} s"
    except OSError as error:
        return f"{slicer} cannot be started: {error.strerror}"
    output = done.stdout.decode(errors="replace")
    print(output, flush=True)
    return verdict(done.returncode, output)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", metavar="NAME")
    parser.add_argument("--slicer", default=os.environ.get(EXECUTABLE_VARIABLE), help="Slicer's executable")
    parser.add_argument("--timeout", type=float, default=SECONDS, metavar="SECONDS", help="for each test")
    parser.add_argument("--no-main-window", action="store_true", help="as the build farm's generic tests")
    args = parser.parse_args(argv)
    if not args.slicer:
        parser.error(f"name Slicer's executable with --slicer or {EXECUTABLE_VARIABLE}")
    known = registered()
    unknown = sorted(set(args.tests) - set(known))
    if unknown:
        parser.error(f"{', '.join(unknown)}: not in {LIST}; there are {', '.join(known)}")
    options = ["--no-main-window"] if args.no_main_window else []
    failures = {}
    for test in args.tests or known:
        problem = run(args.slicer, test, options, args.timeout)
        if problem:
            failures[test] = problem
    for test, problem in failures.items():
        print(f"FAILED {test}: {problem}")
    print(f"{len(args.tests or known) - len(failures)} of {len(args.tests or known)} passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
