import re
import stat

import numpy as np
import pytest
import SimpleITK as sitk

from samu_core import io
from samu_core.errors import SamuError, VolumeError
from samu_core.geometry import GridGeometry
from samu_core.io import Segment, read_volume, write_labelmap, write_seg_nrrd

SHAPE = (5, 6, 7)


def oblique_image(shape=SHAPE, dtype=np.int16):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 100, shape).astype(dtype))
    rotation = sitk.VersorTransform((1, 2, 3), 0.5).GetMatrix()
    image.SetDirection((np.reshape(rotation, (3, 3)) @ np.diag([1, -1, 1])).ravel().tolist())
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 33.0, 101.25))
    return image


def write_dicom(folder, count=4, uid="1.2.3.4", description="ARTERIAL", modality="CT", step=2.0, z=None):
    """A series of axial slices; slice n has the value 10 n everywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for n in range(count):
        place = n * step if z is None else z[n]
        image = sitk.GetImageFromArray(np.full((1, 8, 9), 10 * n, np.int16))
        image.SetSpacing((0.5, 0.75, step))
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{n}",
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0008|103e": description,
            "0020|0013": str(n),
            "0020|0032": f"-5\\7\\{place}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": str(step),
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        # Names in the opposite order: positions count, not names.
        writer.SetFileName(str(folder / f"{uid}-{99 - n}.dcm"))
        writer.Execute(image)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_every_format_gives_the_same_volume_in_ras(tmp_path, suffix):
    image = oblique_image()
    sitk.WriteImage(image, str(tmp_path / f"my.scan{suffix}"))

    volume = read_volume(tmp_path / f"my.scan{suffix}")

    assert volume.name == "my.scan"
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    x, y, z = image.TransformIndexToPhysicalPoint((6, 2, 3))
    np.testing.assert_allclose(volume.geometry.ijk_to_point((6, 2, 3)), (-x, -y, z), atol=1e-4)
    np.testing.assert_allclose(volume.geometry.spacing, (0.7, 1.1, 2.5), atol=1e-5)
    assert volume.modality is None and volume.notes == []


def test_path_may_be_a_string(tmp_path):
    sitk.WriteImage(oblique_image(), str(tmp_path / "a.nrrd"))
    assert read_volume(str(tmp_path / "a.nrrd")).array.shape == SHAPE


def test_single_time_point_is_squeezed_and_more_are_refused(tmp_path):
    image = oblique_image()
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / "one.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([image, image, image]), str(tmp_path / "three.nii.gz"))
    volume = read_volume(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.geometry.ijk_to_ras, io.geometry_from_sitk(image).ijk_to_ras, atol=1e-4)
    with pytest.raises(VolumeError, match="3 time points"):
        read_volume(tmp_path / "three.nii.gz")


def test_rgb_is_refused_and_a_vector_of_one_is_not(tmp_path):
    rgb = sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    sitk.WriteImage(rgb, str(tmp_path / "rgb.nrrd"))
    with pytest.raises(VolumeError, match="'rgb' is an RGB or vector image .3 values"):
        read_volume(tmp_path / "rgb.nrrd")
    single = sitk.GetImageFromArray(np.ones((*SHAPE, 1), np.float32), isVector=True)
    assert io.volume_from_sitk(single).array.shape == SHAPE


def test_complex_images_are_refused():
    with pytest.raises(VolumeError, match="real numbers"):
        io.volume_from_sitk(sitk.GetImageFromArray(np.ones(SHAPE, np.complex64)))


def test_2d_and_single_slices_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 30), np.uint8)), str(tmp_path / "flat.png"))
    with pytest.raises(VolumeError, match="2D image .30 x 20"):
        read_volume(tmp_path / "flat.png")
    sitk.WriteImage(oblique_image((1, 6, 7)), str(tmp_path / "thin.nrrd"))
    with pytest.raises(VolumeError, match="at least 2 slices"):
        read_volume(tmp_path / "thin.nrrd")


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    (tmp_path / "text.nii.gz").write_text("not an image")
    (tmp_path / "cut.nrrd").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 3 4 5\nencoding: raw\n\nabc"
    )
    for name in ("text.nii.gz", "cut.nrrd", "missing.nii"):
        with pytest.raises(VolumeError) as caught:
            read_volume(tmp_path / name)
        message = str(caught.value)
        assert name in message and "\n" not in message and "sitk::" not in message
    with pytest.raises(VolumeError, match="There is no file"):
        read_volume(tmp_path / "missing.nii")


def test_dicom_folder(tmp_path, capfd):
    write_dicom(tmp_path / "study")
    volume = read_volume(tmp_path / "study")
    assert (volume.name, volume.modality, volume.notes) == ("ARTERIAL", "CT", [])
    np.testing.assert_array_equal(volume.array[:, 0, 0], [0, 10, 20, 30])
    np.testing.assert_allclose(volume.geometry.ijk_to_point((0, 0, 3)), (5, -7, 6))
    np.testing.assert_allclose(volume.geometry.spacing, (0.5, 0.75, 2))
    assert capfd.readouterr().err == ""


def test_largest_of_several_series_is_taken_and_named(tmp_path):
    write_dicom(tmp_path, 3, "1.2.5", "SCOUT", modality="MR")
    write_dicom(tmp_path, 6, "1.2.6", "T2 AX", modality="MR")
    (tmp_path / "readme.txt").write_text("hello")
    volume = read_volume(tmp_path)
    assert (volume.name, volume.modality, volume.array.shape[0]) == ("T2 AX", "MR", 6)
    assert len(volume.notes) == 1 and "2 DICOM series" in volume.notes[0] and "T2 AX" in volume.notes[0]


def test_series_in_folders_below_is_found(tmp_path):
    write_dicom(tmp_path / "PAT1" / "ST1" / "SE2", modality="PT", description="")
    volume = read_volume(tmp_path)
    assert volume.modality is None and volume.name == "SE2"


def test_folder_without_images_says_what_is_there(tmp_path):
    with pytest.raises(VolumeError, match="empty"):
        read_volume(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    with pytest.raises(VolumeError, match=r"no DICOM series in .*; it holds notes\.txt, sub/; give"):
        read_volume(tmp_path)


def test_missing_slice_and_repeated_position_are_noticed(tmp_path):
    write_dicom(tmp_path / "gap", 4, z=[0, 2, 4, 8])
    assert re.search(r"2\.00 to 4\.00 mm apart", read_volume(tmp_path / "gap").notes[0])
    write_dicom(tmp_path / "twice", 4, z=[0, 0, 2, 2])
    with pytest.raises(VolumeError, match="several images at one position"):
        read_volume(tmp_path / "twice")


def test_one_slice_of_dicom_is_refused(tmp_path):
    write_dicom(tmp_path, 1)
    with pytest.raises(VolumeError, match="one slice"):
        read_volume(tmp_path)
    with pytest.raises(VolumeError, match="give the folder"):
        read_volume(next(tmp_path.glob("*.dcm")))


def labels_and_geometry(shear=0.0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5, 3:4] = 1
    labels[3:, 0, :2] = 7
    matrix = io.geometry_from_sitk(oblique_image()).ijk_to_ras.copy()
    matrix[:3, 1] += shear * matrix[:3, 0]
    return labels, GridGeometry(SHAPE, matrix)


SEGMENTS = [Segment("left\nkidney ä", (0.1, 0.5, 1.0), 1), Segment("cyst", (1, 0, 0), 7)]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".NII.GZ"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_labelmap_comes_back(tmp_path, suffix, dtype):
    labels, geometry = labels_and_geometry()
    write_labelmap(tmp_path / f"out{suffix}", labels.astype(dtype), geometry)
    back = read_volume(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(back.array, labels.astype(dtype))
    np.testing.assert_allclose(back.geometry.ijk_to_ras, geometry.ijk_to_ras, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [f"out{suffix}"]


def test_sheared_grid_needs_a_format_that_can_hold_it(tmp_path):
    labels, geometry = labels_and_geometry(shear=0.3)
    with pytest.raises(SamuError, match=r"sheared.*\.nrrd"):
        write_labelmap(tmp_path / "out.nii.gz", labels, geometry)
    write_labelmap(tmp_path / "out.nrrd", labels, geometry)
    np.testing.assert_allclose(read_volume(tmp_path / "out.nrrd").geometry.ijk_to_ras, geometry.ijk_to_ras)


def test_seg_nrrd_is_a_label_map_with_slicers_header(tmp_path):
    labels, geometry = labels_and_geometry()
    write_seg_nrrd(tmp_path / "out.seg.nrrd", labels, geometry, [*SEGMENTS, Segment("none", (0, 1, 2), 9)])

    image = sitk.ReadImage(str(tmp_path / "out.seg.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels)
    np.testing.assert_allclose(io.geometry_from_sitk(image).ijk_to_ras, geometry.ijk_to_ras, atol=1e-9)
    header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
    assert header["Segment0_Name"] == "left kidney ä"
    assert header["Segment0_Color"] == "0.1 0.5 1"
    assert header["Segment0_LabelValue"] == "1" and header["Segment1_LabelValue"] == "7"
    assert header["Segment0_Extent"] == "3 3 2 4 1 2"
    assert header["Segment1_Extent"] == "0 1 0 0 3 4"
    assert header["Segment2_Extent"] == "0 -1 0 -1 0 -1" and header["Segment2_Color"] == "0 1 1"
    assert len({header[f"Segment{n}_ID"] for n in range(3)}) == 3
    assert {header[f"Segment{n}_Layer"] for n in range(3)} == {"0"}
    assert header["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    name, numbers, _ = header["Segmentation_ConversionParameters"].split("|")
    numbers = numbers.rstrip(";").split(";")
    assert name == "Reference image geometry"
    np.testing.assert_allclose([float(n) for n in numbers[:16]], geometry.ijk_to_ras.ravel())
    assert numbers[16:] == ["0", "6", "0", "5", "0", "4"]


def test_segments_and_label_map_must_belong_together(tmp_path):
    labels, geometry = labels_and_geometry()
    with pytest.raises(ValueError, match=r"without a segment: \[7\]"):
        write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, geometry, SEGMENTS[:1])
    with pytest.raises(ValueError, match="distinct"):
        write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, geometry, SEGMENTS[:1] * 2)
    with pytest.raises(ValueError, match="does not fit"):
        write_labelmap(tmp_path / "a.nrrd", labels[1:], geometry)
    with pytest.raises(ValueError, match="integers"):
        write_labelmap(tmp_path / "a.nrrd", labels.astype(float), geometry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.png", "out", "out.mhd", "out.hdr"])
def test_unknown_formats_are_refused(tmp_path, name):
    labels, geometry = labels_and_geometry()
    with pytest.raises(SamuError, match=r"must end in .*\.nrrd"):
        write_labelmap(tmp_path / name, labels, geometry)


@pytest.mark.parametrize(
    "failure", [RuntimeError("disk full"), OSError(28, "No space left"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("name", ["out.nii.gz", "out.seg.nrrd"])
def test_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure, name):
    labels, geometry = labels_and_geometry()
    target = tmp_path / name
    target.write_bytes(b"the old result")

    def half(image, path, **options):
        with open(path, "wb") as file:
            file.write(b"half of it")
        assert target.read_bytes() == b"the old result"
        raise failure

    monkeypatch.setattr(io.sitk, "WriteImage", half)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else SamuError
    with pytest.raises(expected) as caught:
        if name.endswith(".seg.nrrd"):
            write_seg_nrrd(target, labels, geometry, SEGMENTS)
        else:
            write_labelmap(target, labels, geometry)
    if expected is SamuError:
        assert name in str(caught.value) and "\n" not in str(caught.value)
        assert "disk full" in str(caught.value) or "No space left" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert target.read_bytes() == b"the old result"


def test_old_file_is_replaced_by_a_complete_one(tmp_path):
    labels, geometry = labels_and_geometry()
    target = tmp_path / "out.nrrd"
    target.write_bytes(b"the old result")
    write_labelmap(target, labels, geometry)
    np.testing.assert_array_equal(read_volume(target).array, labels)
    assert stat.S_IMODE(target.stat().st_mode) & 0o444  # not a private temporary file's mode


def test_places_that_cannot_be_written_are_named(tmp_path):
    labels, geometry = labels_and_geometry()
    with pytest.raises(SamuError, match="folder .*missing does not exist"):
        write_labelmap(tmp_path / "missing" / "out.nrrd", labels, geometry)
    (tmp_path / "out.nrrd").mkdir()
    with pytest.raises(SamuError, match="it is a folder"):
        write_labelmap(tmp_path / "out.nrrd", labels, geometry)
    assert [p.name for p in tmp_path.iterdir()] == ["out.nrrd"]
