"""The core layer needs neither Slicer nor an installed samu_core: the sources are put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[3]
for folder in (HERE, REPOSITORY):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
