"""How PyTorch comes into Slicer: never by itself, only through the PyTorch extension."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
from SAMUSegmentLib import dependencies
from SAMUSegmentLib.dependencies import Dependencies, SlicerPackages

from samu_core.errors import SamuError


class Packages:
    """A Slicer that can be told what happens."""

    def __init__(self, torch=False, extension=False, agrees=True, works=True):
        self.torch, self.extension, self.agrees, self.works = torch, extension, agrees, works
        self.calls, self.version = [], "2.8.0+cpu"

    def torchVersion(self):
        return self.version

    def torchFound(self):
        return self.torch

    def extensionFound(self):
        return self.extension

    def confirm(self, question):
        self.calls.append("confirm")
        assert "downloaded" in question
        return self.agrees

    def installTorch(self):
        self.calls.append("installTorch")
        if not self.works:
            raise RuntimeError("no\nnetwork")
        self.torch = self.agrees

    def installExtension(self):
        self.calls.append("installExtension")
        return self.works

    def restart(self):
        self.calls.append("restart")


def test_with_torch_nothing_is_missing_and_nothing_is_done():
    packages = Packages(torch=True)
    state = Dependencies(packages).check()
    assert state.ready and not state.text and not state.button
    assert Dependencies(packages).proceed().ready and packages.calls == []


@pytest.mark.parametrize("version, usable", [("1.13.1", False), ("2.0.1+cu117", False), ("2.1.0", True)])
@pytest.mark.parametrize("extension", [False, True])
def test_a_torch_of_another_extension_that_is_too_old_is_told_and_left_alone(version, usable, extension):
    """Complaint about the peers: wrong torch/CUDA."""
    packages = Packages(torch=True, extension=extension)
    packages.version = version
    state = Dependencies(packages).check()
    assert state.ready == usable
    if not usable:
        assert version in state.text and "2.1 or later" in state.text and not state.button
    Dependencies(packages).proceed()
    assert packages.calls == []


@pytest.mark.parametrize("version", ["", "nightly", "10.0"])
def test_a_version_that_nobody_can_read_is_given_a_try(version):
    packages = Packages(torch=True)
    packages.version = version
    assert Dependencies(packages).check().ready


def test_checking_never_installs():
    for extension in (False, True):
        packages = Packages(extension=extension)
        state = Dependencies(packages).check()
        assert not state.ready and state.text and state.button and packages.calls == []


def test_torch_comes_through_the_extension():
    packages = Packages(extension=True)
    needs = Dependencies(packages)
    assert needs.check().need == dependencies.NEEDS_TORCH
    assert needs.proceed().ready and packages.calls == ["installTorch"]


def test_declining_leaves_everything_as_it_was():
    packages = Packages(extension=True, agrees=False)
    assert Dependencies(packages).proceed().need == dependencies.NEEDS_TORCH
    packages = Packages(agrees=False)
    assert Dependencies(packages).proceed().need == dependencies.NEEDS_EXTENSION
    assert packages.calls == ["confirm"]


def test_without_the_extension_it_is_installed_first_and_slicer_restarted():
    packages = Packages()
    needs = Dependencies(packages)
    assert needs.check().need == dependencies.NEEDS_EXTENSION
    state = needs.proceed()
    assert state.need == dependencies.NEEDS_RESTART and "Restart" in state.button
    assert packages.calls == ["confirm", "installExtension"]
    needs.proceed()
    assert packages.calls[-1] == "restart"


@pytest.mark.parametrize("extension", [False, True])
def test_a_failure_says_what_to_do_in_one_line(extension):
    needs = Dependencies(Packages(extension=extension, works=False))
    with pytest.raises(SamuError, match="network connection") as error:
        needs.proceed()
    assert "\n" not in str(error.value)
    assert not needs.check().ready


def test_what_is_asked_of_slicer(monkeypatch):
    """SlicerPackages against the calls that the PyTorch extension and Slicer offer."""
    asked = {}

    class Logic:
        def installTorch(self, askConfirmation=False, torchVersionRequirement=None):
            asked.update(confirm=askConfirmation, version=torchVersionRequirement)
            return "torch"

    class Manager:
        interactive = True

        def installExtensionFromServer(self, name, restart=True):
            asked.update(name=name, restart=restart, interactive=self.interactive)
            return True

    manager = Manager()
    utilities = types.SimpleNamespace(PyTorchUtilsLogic=Logic)
    app = types.SimpleNamespace(extensionsManagerModel=lambda: manager)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", utilities)
    monkeypatch.setitem(sys.modules, "slicer", types.SimpleNamespace(app=app))
    packages = SlicerPackages()
    assert packages.installTorch() == "torch" and packages.installExtension()
    assert asked == {
        "confirm": True,
        "version": ">=2.1",
        "name": "PyTorch",
        "restart": False,
        "interactive": False,
    }
    assert manager.interactive, "as it was"


def test_looking_for_torch_does_not_import_it():
    code = (
        "import sys; from SAMUSegmentLib.dependencies import SlicerPackages as S; S().torchFound();"
        "S().extensionFound(); sys.exit('torch' in sys.modules)"
    )
    path = os.pathsep.join(folder for folder in sys.path if folder)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0
