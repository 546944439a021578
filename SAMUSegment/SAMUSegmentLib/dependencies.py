"""Is PyTorch there, and how to get it: through Slicer's PyTorch extension, and only when asked to.

Nothing here imports torch or touches the network before the user pressed the button.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from samu_core.errors import SamuError

OLDEST_TORCH = (2, 1)
TORCH_REQUIREMENT = ">={}.{}".format(*OLDEST_TORCH)
EXTENSION = "PyTorch"

READY = "ready"
NEEDS_TORCH = "torch"
NEEDS_EXTENSION = "extension"
NEEDS_RESTART = "restart"
NEEDS_NEWER_TORCH = "newer torch"


@dataclass(frozen=True)
class DependencyState:
    """What is missing.

    Attributes:
        need: one of the constants above.
        text: for the panel; empty when nothing is missing.
        button: what its one button says; empty for no button.
    """

    need: str
    text: str = ""
    button: str = ""

    @property
    def ready(self) -> bool:
        """True when clicks can be carried out."""
        return self.need == READY


STATES = {
    READY: DependencyState(READY),
    NEEDS_TORCH: DependencyState(
        NEEDS_TORCH,
        "PyTorch, which runs the network, is not installed yet. It is downloaded once (200 MB to 3 GB, "
        "several minutes); after that no network is needed.",
        "Install PyTorch...",
    ),
    NEEDS_EXTENSION: DependencyState(
        NEEDS_EXTENSION,
        "Slicer's PyTorch extension, which installs PyTorch, is missing. Slicer must be restarted after it.",
        "Install the PyTorch extension...",
    ),
    NEEDS_RESTART: DependencyState(
        NEEDS_RESTART, "Restart Slicer to finish the installation.", "Restart Slicer"
    ),
}


def _tooOld(version: str) -> bool:
    """True for a version of torch that is known and lower than OLDEST_TORCH."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and tuple(int(number) for number in numbers.groups()) < OLDEST_TORCH


def _newerTorch(version: str) -> DependencyState:
    # Without a button: other extensions may need the old one, so the user decides.
    return DependencyState(
        NEEDS_NEWER_TORCH,
        f"PyTorch {version} is installed, but {TORCH_REQUIREMENT[2:]} or later is needed: uninstall it in "
        "the module PyTorch Utils, restart Slicer and install it again there.",
    )


class SlicerPackages:
    """What Slicer can do about packages; the tests give a stand-in."""

    def torchFound(self) -> bool:
        """True when torch can be imported; does not import it."""
        return importlib.util.find_spec("torch") is not None

    def torchVersion(self) -> str:
        """The version of the torch that is installed; empty if nobody knows."""
        try:
            return importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return ""

    def extensionFound(self) -> bool:
        """True when the PyTorch extension is loaded."""
        return importlib.util.find_spec("PyTorchUtils") is not None

    def installTorch(self) -> Any:
        """Ask, install and import torch by means of the extension; None when the user declined."""
        import PyTorchUtils

        logic = PyTorchUtils.PyTorchUtilsLogic()
        return logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT)

    def installExtension(self) -> bool:
        """Download and install the extension from the server; False when that failed."""
        import slicer

        manager = slicer.app.extensionsManagerModel()
        # The panel asks before and offers the restart after: no dialogs, no restart out of the blue.
        wasInteractive, manager.interactive = manager.interactive, False
        try:
            return bool(manager.installExtensionFromServer(EXTENSION, False))
        finally:
            manager.interactive = wasInteractive

    def confirm(self, question: str) -> bool:
        """Ask the user."""
        import slicer

        return bool(slicer.util.confirmOkCancelDisplay(question))

    def restart(self) -> None:
        """Restart Slicer, which asks what to do about unsaved data."""
        import slicer

        slicer.util.restart()


class Dependencies:
    """Knows what is missing and gets it.

    Args:
        packages: SlicerPackages or a stand-in.
    """

    def __init__(self, packages: Any | None = None):
        self._packages = packages or SlicerPackages()
        self._extensionInstalled = False

    def check(self) -> DependencyState:
        """What is missing now; quick, and without consequences."""
        if self._packages.torchFound():
            version = self._packages.torchVersion()
            return _newerTorch(version) if _tooOld(version) else STATES[READY]
        if self._packages.extensionFound():
            return STATES[NEEDS_TORCH]
        return STATES[NEEDS_RESTART if self._extensionInstalled else NEEDS_EXTENSION]

    def proceed(self) -> DependencyState:
        """What the button does: the next step towards being ready.

        Returns:
            What is missing afterwards; the same as before when the user declined.

        Raises:
            SamuError: the step failed; its message says what to do.
        """
        step: dict[str, Callable[[], None]] = {
            READY: lambda: None,
            NEEDS_NEWER_TORCH: lambda: None,
            NEEDS_TORCH: self._installTorch,
            NEEDS_EXTENSION: self._installExtension,
            NEEDS_RESTART: self._packages.restart,
        }
        step[self.check().need]()
        return self.check()

    def _installTorch(self) -> None:
        try:
            self._packages.installTorch()
        except Exception as error:
            text = " ".join(str(error).split())
            raise SamuError(
                f"PyTorch could not be installed ({text}). Check the network connection and try again, or "
                "use the module PyTorch Utils."
            ) from error
        # What was installed by another process is found only after this.
        importlib.invalidate_caches()

    def _installExtension(self) -> None:
        question = "The PyTorch extension will be downloaded and installed; then Slicer has to be restarted."
        if not self._packages.confirm(question):
            return
        if not self._packages.installExtension():
            raise SamuError(
                "The PyTorch extension could not be installed. Check the network connection, or install it "
                "in the Extensions Manager."
            )
        self._extensionInstalled = True
