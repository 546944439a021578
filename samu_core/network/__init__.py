"""The SAMU network (Bae et al.): a 3D UNet whose decoder cross-attends to a point prompt at every
resolution."""

from samu_core.network.config import SAMUConfig
from samu_core.network.samu import SAMU

__all__ = ["SAMU", "SAMUConfig"]
