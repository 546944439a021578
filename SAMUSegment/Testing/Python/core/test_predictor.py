import threading
import time

import numpy as np
import pytest

from samu_core import engine as engine_module
from samu_core import predictor as predictor_module
from samu_core.errors import Cancelled, PointOutsideVolumeError, SamuError, VolumeError
from samu_core.geometry import Volume
from samu_core.predictor import Predictor

torch = pytest.importorskip("torch")

SIZE = 32
RADIUS_MM = 9.0


class BallNetwork(torch.nn.Module):
    """Says: a ball around the click, wherever the image is as bright as at the click. Counts its calls."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv3d(1, 1, 1, bias=False)
        torch.nn.init.ones_(self.convolution.weight)
        self.encoded, self.decoded, self.patches = 0, 0, []

    def encode(self, patch):
        assert not torch.is_grad_enabled() and not self.training
        self.encoded += 1
        self.patches.append(patch[0, 0].float().numpy().copy())
        return [self.convolution(patch)]

    def decode(self, features, prompt):
        self.decoded += 1
        image = features[0]
        size = image.shape[-1]
        click = prompt.position[0] * size - 0.5
        axis = torch.arange(size, dtype=torch.float32)
        offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1) - click
        distance = offsets.norm(dim=-1) * 1.5
        value = image[0, 0][tuple(click.round().long().clamp(0, size - 1).tolist())]
        alike = (image[0, 0].float() - value.float()).abs() < 0.5
        return torch.where(alike, RADIUS_MM - distance, torch.tensor(-5.0))[None, None].to(image.dtype)


def make_volume(seed=0, shape=(40, 44, 48), **options):
    """A bright box in noise, in a flipped anisotropic grid."""
    rng = np.random.default_rng(seed)
    array = rng.normal(0, 5, shape).astype(np.float32)
    array[10:30, 10:34, 10:38] += 400
    matrix = np.diag([-1.0, 1.2, 1.4, 1.0])
    matrix[:3, 3] = (30, -20, 5)
    return Volume(array, matrix, **options)


CENTER_IJK = (24.0, 22.0, 20.0)


@pytest.fixture
def volume():
    return make_volume()


@pytest.fixture
def center(volume):
    return volume.geometry.ijk_to_point(CENTER_IJK)


@pytest.fixture
def network():
    return BallNetwork()


def make(network, **options):
    options.setdefault("device", "cpu")
    options.setdefault("second_look", False)  # test_closer.py has the second look
    options.setdefault("precision", "float32")
    return Predictor(network=network, patch_size=SIZE, **options)


def test_a_click_gives_the_ball_at_its_place(volume, center, network):
    prediction = make(network).predict(volume, center)
    assert prediction.logits.dtype == np.float32 and prediction.logits.shape == (SIZE,) * 3
    assert (prediction.device, prediction.precision, prediction.notice) == ("cpu", "float32", "")
    np.testing.assert_array_equal(prediction.point_ras, center)
    mask = prediction.mask(volume.geometry).full(volume.geometry)
    k, j, i = np.nonzero(mask)
    found = np.mean([volume.geometry.ijk_to_point(each) for each in zip(i, j, k)], axis=0)
    assert np.abs(found - center).max() < 0.75
    assert mask.sum() * 1.2 * 1.4 == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.1)
    assert not prediction.touches_border()


def test_the_network_sees_the_normalised_patch(volume, center, network):
    make(network).predict(volume, center)
    patch = network.patches[0]
    assert np.isfinite(patch).all() and abs(patch.mean()) < 1.5 and 0.2 < patch.std() < 1.5
    assert patch[15:17, 15:17, 15:17].min() > 0.5  # the bright box


def test_patch_beyond_the_volume_is_marked(volume, network):
    corner = volume.geometry.ijk_to_point((0, 0, 0))
    prediction = make(network).predict(volume, corner)
    assert not prediction.inside.all() and prediction.inside.any()
    contained = [
        volume.geometry.contains(prediction.grid.geometry.ijk_to_point((i, 16, 16))) for i in range(SIZE)
    ]
    np.testing.assert_array_equal(prediction.inside[16, 16, :], contained)


def test_stages_are_reported_and_timed_in_order(volume, center, network):
    stages = []
    predictor = make(network)
    prediction = predictor.predict(volume, center, progress=stages.append)
    assert stages == ["sample", "normalize", "load", "encode", "decode"]
    assert set(prediction.seconds) == set(stages)
    assert all(0 < seconds < 60 for seconds in prediction.seconds.values())


def test_second_click_in_the_same_patch_costs_the_decoder_only(volume, center, network):
    predictor = make(network)
    first = predictor.predict(volume, center)
    second = predictor.predict(volume, center)
    assert (network.encoded, network.decoded) == (1, 2)
    assert set(second.seconds) == {"sample", "decode"}
    np.testing.assert_array_equal(first.logits, second.logits)
    predictor.predict(volume, center + 3)
    assert network.encoded == 2
    predictor.clear_cache()
    predictor.predict(volume, center + 3)
    assert network.encoded == 3


def test_promised_version_spares_even_the_sampling(network):
    first, again = make_volume(version=("node", 1)), make_volume(version=("node", 1))
    point = first.geometry.ijk_to_point(CENTER_IJK)
    predictor = make(network)
    predictor.predict(first, point)
    assert set(predictor.predict(again, point).seconds) == {"decode"}
    assert network.encoded == 1


def test_modified_volume_is_not_served_stale(volume, center, network):
    predictor = make(network)
    predictor.predict(volume, center)
    volume.array[15:20, 15:20, 15:20] = -1000
    predictor.predict(volume, center)
    assert network.encoded == 2
    assert not np.array_equal(*network.patches)
    versions = [make_volume(seed, version=("node", seed)) for seed in (1, 2)]
    for each in versions:
        predictor.predict(each, center)
    assert network.encoded == 4


def test_same_voxels_elsewhere_or_of_another_modality_are_another_patch(volume, center, network):
    predictor = make(network)
    predictor.predict(volume, center)
    matrix = volume.geometry.ijk_to_ras.copy()
    matrix[:3, 3] += 7
    moved = Volume(volume.array, matrix)
    mask = predictor.predict(moved, center + 7).mask(moved.geometry).array
    assert network.encoded == 2 and mask.sum() > 1000
    predictor.predict(Volume(volume.array, matrix, modality="CT"), center + 7)
    assert network.encoded == 3


def test_same_version_in_another_place_is_sampled_again(center, network):
    predictor = make(network)
    first = make_volume(version=1)
    predictor.predict(first, center)
    matrix = first.geometry.ijk_to_ras.copy()
    matrix[:3, 3] += 2
    predictor.predict(Volume(first.array, matrix, version=1), center)
    assert network.encoded == 2


def test_reuse_radius_keeps_the_patch_for_clicks_near_its_centre(volume, center, network):
    predictor = make(network, reuse_radius_mm=6.0)
    first = predictor.predict(volume, center)
    near = predictor.predict(volume, center + (0, 5, 0))
    assert near.grid == first.grid and network.encoded == 1
    # the prompt moved although the patch did not
    k, j, i = np.nonzero(near.logits > 0)
    assert near.grid.geometry.ijk_to_point((i.mean(), j.mean(), k.mean()))[1] > center[1] + 3
    far = predictor.predict(volume, center + (0, 8, 0))
    assert far.grid.center_ras == tuple(center + (0, 8, 0)) and network.encoded == 2
    other = make_volume(1)
    assert predictor.predict(other, center + (0, 9, 0)).grid.center_ras == tuple(center + (0, 9, 0))
    volume.array[:] += 1  # the same object, changed: same patch, new features
    predictor.predict(volume, center)
    volume.array[12:14] += 100
    predictor.predict(volume, center)
    assert network.encoded == 5


def test_spacing_of_the_patch(volume, center, network):
    predictor = make(network)
    assert predictor.predict(volume, center, spacing=2.5).grid.spacing == 2.5
    assert predictor.predict(volume, center, spacing="native").grid.spacing == 1.0
    with pytest.raises(SamuError, match="native"):
        predictor.predict(volume, center, spacing="coarse")


def test_click_outside_costs_nothing(volume, network):
    with pytest.raises(PointOutsideVolumeError):
        make(network).predict(volume, (1000, 0, 0))
    with pytest.raises(VolumeError, match="no image data"):
        make(network).predict(Volume(np.full((9, 9, 9), np.nan), np.eye(4)), (4, 4, 4))
    assert network.encoded == 0


@pytest.mark.parametrize("stage", ["sample", "normalize", "load", "encode", "decode", "end"])
def test_cancellation_at_every_stage_and_the_predictor_lives_on(volume, center, network, stage):
    predictor, seen = make(network), []

    def cancelled():
        # asked before each stage is announced: as many announcements as stages are done
        order = ["sample", "normalize", "load", "encode", "decode", "end"]
        return len(seen) >= order.index(stage)

    with pytest.raises(Cancelled):
        predictor.predict(volume, center, cancelled=cancelled, progress=seen.append)
    assert network.decoded == (1 if stage == "end" else 0)
    assert predictor.predict(volume, center).mask(volume.geometry).array.any()
    assert network.encoded == 1


def test_error_in_the_network_is_passed_on_and_the_predictor_lives_on(volume, center, network, monkeypatch):
    predictor = make(network)
    with monkeypatch.context() as patched:
        patched.setattr(network, "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictor.predict(volume, center)
    assert predictor.predict(volume, center).mask(volume.geometry).array.any()


def test_one_prediction_at_a_time(volume, center, network):
    busy, most = [], []
    decode = network.decode

    def slow(features, prompt):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.05)
        busy.pop()
        return decode(features, prompt)

    network.decode = slow
    predictor = make(network)
    results = {}

    def click(n):
        results[n] = predictor.predict(volume, center + (0, n, 0))

    threads = [threading.Thread(target=click, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    # asking does not wait for the prediction
    assert predictor.description == "CPU, float32"
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(results) == 4
    for n, result in results.items():
        np.testing.assert_allclose(result.grid.center_ras, center + (0, n, 0))


def test_waiting_click_that_was_cancelled_does_not_run(volume, center, network):
    predictor, inside, go = make(network), threading.Event(), threading.Event()

    def hold(stage):
        if stage == "decode":
            inside.set()
            assert go.wait(10)

    first = threading.Thread(target=lambda: predictor.predict(volume, center, progress=hold))
    first.start()
    assert inside.wait(10)
    errors, stop = [], threading.Event()

    def second():
        try:
            predictor.predict(volume, center + 1, cancelled=stop.is_set)
        except Cancelled as error:
            errors.append(error)

    other = threading.Thread(target=second)
    other.start()
    stop.set()
    go.set()
    first.join()
    other.join()
    assert len(errors) == 1 and network.encoded == 1


def test_warm_up_loads_and_runs_and_leaves_no_trace(volume, center, network):
    predictor = make(network)
    assert not predictor.loaded
    assert predictor.warm_up() > 0
    assert predictor.loaded and (network.encoded, network.decoded) == (1, 1)
    prediction = predictor.predict(volume, center)
    assert "load" not in prediction.seconds and network.encoded == 2


class SmallGpu(engine_module.TorchEngine):
    """Runs on the CPU but calls itself CUDA, and its memory is full."""

    def __init__(self, network, device, precision):
        super().__init__(network, "cpu", "float32")
        self.is_gpu = device != "cpu"

    def encode(self, patch):
        if self.is_gpu:
            raise self.error
        return super().encode(patch)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_full_gpu_memory_falls_back_to_the_cpu_and_says_so(volume, center, network, monkeypatch, error, warm):
    """Complaint about the peers: small GPUs."""
    monkeypatch.setattr(predictor_module, "choose_device", lambda wanted: "cuda")
    choose = engine_module.choose_precision
    monkeypatch.setattr(
        predictor_module, "choose_precision", lambda p, d: "float16" if d == "cuda" else choose(p, d)
    )
    monkeypatch.setattr(predictor_module, "TorchEngine", SmallGpu)
    monkeypatch.setattr(SmallGpu, "error", error, raising=False)
    said = []
    predictor = make(network, device="cuda", precision="auto", on_notice=said.append)
    assert (predictor.device, predictor.precision) == ("cuda", "float16")
    if warm:
        predictor.warm_up()

    prediction = predictor.predict(volume, center)

    assert prediction.device == predictor.device == "cpu"
    assert prediction.mask(volume.geometry).array.any()
    assert len(said) == 1 and "CPU" in said[0] and "\n" not in said[0] and predictor.notice == said[0]
    assert prediction.notice == ("" if warm else said[0])
    assert predictor.predict(volume, center).notice == ""  # said once
    assert len(said) == 1


def test_other_errors_on_the_gpu_are_not_taken_for_full_memory(volume, center, network, monkeypatch):
    monkeypatch.setattr(predictor_module, "choose_device", lambda wanted: "cuda")
    monkeypatch.setattr(predictor_module, "choose_precision", lambda *_: "float16")
    monkeypatch.setattr(predictor_module, "TorchEngine", SmallGpu)
    monkeypatch.setattr(SmallGpu, "error", RuntimeError("an illegal memory access"), raising=False)
    with pytest.raises(RuntimeError, match="illegal"):
        make(network, device="cuda").predict(volume, center)


def test_overflow_in_half_precision_is_repeated_in_float32(volume, center, network, monkeypatch):
    class Half(engine_module.TorchEngine):
        def decode(self, features, fraction_kji):
            logits = super().decode(features, fraction_kji)
            return logits * np.nan if self.precision == "bfloat16" else logits

    monkeypatch.setattr(predictor_module, "choose_precision", lambda *_: "bfloat16")
    monkeypatch.setattr(predictor_module, "TorchEngine", Half)
    prediction = make(network, precision="bfloat16").predict(volume, center)
    assert prediction.precision == "float32" and "float32" in prediction.notice
    assert np.isfinite(prediction.logits).all()


def test_damaged_weights_are_not_passed_off_as_a_result(volume, center, network):
    with torch.no_grad():
        network.convolution.weight.fill_(float("nan"))
    network.decode = lambda features, prompt: features[0]
    with pytest.raises(SamuError, match="damaged"):
        make(network).predict(volume, center)


def test_the_real_network_runs_and_follows_the_click(volume, center):
    from samu_core.network import SAMU

    torch.manual_seed(0)
    predictor = make(SAMU(), reuse_radius_mm=20.0)
    first = predictor.predict(volume, center)
    second = predictor.predict(volume, center + (0, 10, 0))
    assert second.grid == first.grid and "encode" not in second.seconds
    assert np.isfinite(first.logits).all() and first.logits.std() > 0
    assert np.abs(first.logits - second.logits).max() > 1e-4
    again = make(predictor._network).predict(volume, center)
    np.testing.assert_allclose(again.logits, first.logits, atol=1e-4)
