"""One click in a CT or MR volume, one 3D segment: the SAMU model as a plain Python package.

Importing the package is cheap: torch and SimpleITK are imported by the modules that need them
(:mod:`samu_core.predictor`, :mod:`samu_core.geometry`), so that Slicer can load its module list
without either.

Conventions everywhere in the package: arrays are KJI (z, y, x), points are RAS in millimetres,
an index written IJK is (i, j, k). LPS appears only in :mod:`samu_core.io`.
"""

__version__ = "0.1.0"
