"""What the tests of the `samu` command share: an image on disk, ways to call and to read the answers."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from samu_core import cli

# Half way to the background is where the stand-in puts the edge.
BACKGROUND, FIRST, SECOND = 0, 400, -400
FIRST_IJK, SECOND_IJK = (10, 12, 8), (28, 26, 14)
SPACING = (1.2, 1.0, 2.0)


def write_two_boxes(path):
    """Two boxes in a 40 x 36 x 24 image with rotated axes."""
    array = np.full((24, 36, 40), BACKGROUND, np.int16)
    array[4:12, 6:18, 5:16] = FIRST
    array[10:20, 20:32, 22:34] = SECOND
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((-31.0, 17.0, 205.0))
    image.SetDirection(np.array([[0, -1, 0], [0.8, 0, -0.6], [0.6, 0, 0.8]], float).ravel().tolist())
    sitk.WriteImage(image, str(path))


def ras_of(path, ijk):
    x, y, z = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint([float(n) for n in ijk])
    return [str(value) for value in (-x, -y, z)]


def words(values):
    return [str(value) for value in values]


def run(capsys, *argv):
    code = cli.main(words(argv))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error_line(err):
    """The one line that an error consists of, and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("samu: error:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
