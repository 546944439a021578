"""Makes the virtual environment that the Makefile's targets run in.

    python3 tools/environment.py --venv .venv --install dev --stamp .venv/.dev

Only the standard library is used, and only syntax that Python 3.6 still parses, so that an old
interpreter gets told what it lacks instead of a syntax error.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONSTRAINTS = os.path.join(ROOT, "constraints-dev.txt")
OLDEST, NEWEST_TRIED = (3, 9), (3, 13)
# slicer-core's wheels exist for these versions only.
MRML_PYTHONS = ((3, 10), (3, 13))
# The first pip that installs a pyproject-only project editable.
OLDEST_PIP = (21, 3)
PROBE_SECONDS = 5


def fail(message):
    """Print one line and stop with exit code 1."""
    sys.exit("environment: error: " + message)


def other_pythons():
    """Names of suitable interpreters on the PATH, newest tried first."""
    names = [f"python3.{minor}" for minor in range(NEWEST_TRIED[1], OLDEST[1] - 1, -1)]
    return [name for name in names if shutil.which(name) and runs(name)]


def runs(name):
    """Whether an interpreter starts: a name on the PATH may be a version manager's shim of nothing."""
    return subprocess.call([name, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def check_python():
    """Refuse an interpreter that torch and this project do not support."""
    if sys.version_info[:2] >= OLDEST:
        return
    found = other_pythons()
    advice = (
        f"Try: make PYTHON={found[0]}" if found else "Install one and name it: make PYTHON=/path/to/python3"
    )
    fail("Python {}.{} or newer is needed, this is {}. {}".format(*OLDEST, platform.python_version(), advice))


def mrml_reason(version):
    """Why the MRML layer cannot run on a Python version (major, minor); empty if it can."""
    oldest, newest = MRML_PYTHONS
    if oldest <= version <= newest:
        return ""
    return "slicer-core needs Python {}.{} to {}.{}, this is {}.{}".format(*oldest, *newest, *version)


def python_of(venv):
    """The interpreter of a virtual environment, on any platform."""
    folder, name = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return os.path.join(venv, folder, name)


def create(venv):
    """Create the environment if there is none yet, with pip in it."""
    python = python_of(venv)
    if (
        os.path.exists(python)
        and subprocess.call([python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL) == 0
    ):
        return python
    print(f"Creating {venv} with Python {platform.python_version()}", flush=True)
    if subprocess.call([sys.executable, "-m", "venv", "--clear", venv], stdout=subprocess.DEVNULL) != 0:
        # Debian and Ubuntu ship venv without ensurepip unless python3-venv is installed.
        without = subprocess.call([sys.executable, "-m", "venv", "--clear", "--without-pip", venv])
        seeded = without == 0 and subprocess.call(
            [sys.executable, "-m", "pip", "--python", python, "install", "pip"]
        )
        if without != 0 or seeded != 0:
            fail(
                "this Python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"
            )
    return python


def update_pip(python):
    """The pip that came with an early Python 3.9 cannot install this project."""
    answer = subprocess.check_output([python, "-m", "pip", "--version"]).decode().split()[1]
    if tuple(int(part) for part in answer.split(".")[:2]) < OLDEST_PIP:
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"])


def torch_index(url):
    """Pip options for the index of CPU-only torch wheels, none where it is of no use or does not answer.

    On Linux, PyPI's torch depends on some gigabytes of CUDA libraries. Elsewhere it is CPU-only anyway.
    """
    if not url or not sys.platform.startswith("linux"):
        return []
    request = urllib.request.Request(url.rstrip("/") + "/torch/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return ["--extra-index-url", url]
    except OSError:
        print(f"{url} does not answer: torch comes from pip's own sources", flush=True)
        return []


def install(python, what, index_url):
    """Pip-install the extras `what` (comma-separated), or ruff alone for `lint`."""
    # Bytecode is made when a module is first imported: for all of torch's it takes longer than the download.
    command = [python, "-m", "pip", "install", "--no-compile", "-c", CONSTRAINTS]
    if what == "lint":
        # Linting needs neither the package nor its torch.
        command += ["--quiet", "ruff"]
    else:
        print(f"Installing samu_core[{what}]; the first time this fetches some hundred megabytes", flush=True)
        command += torch_index(index_url) + ["-e", f"{ROOT}[{what}]"]
    if subprocess.call(command) != 0:
        fail("pip could not install what is needed, see above. Once the network is back, run make again.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", default=".venv")
    parser.add_argument("--install", metavar="EXTRAS", help="extras of samu_core, comma-separated, or lint")
    parser.add_argument("--torch-index", default="", help="index of CPU-only torch wheels, used on Linux")
    parser.add_argument("--stamp", help="file to touch when all is installed")
    parser.add_argument(
        "--mrml-reason", action="store_true", help="print why the MRML layer cannot run, if so"
    )
    args = parser.parse_args()
    check_python()
    if args.mrml_reason:
        print(mrml_reason(sys.version_info[:2]))
        return
    python = create(args.venv)
    update_pip(python)
    if args.install:
        install(python, args.install, args.torch_index)
    if args.stamp:
        with open(args.stamp, "w") as stamp:
            stamp.write(args.install or "")


if __name__ == "__main__":
    main()
