"""The GPU's engine, as far as a machine without a GPU can tell; with one, the graphs themselves."""

import numpy as np
import pytest
from test_asking import asked, bright_part
from test_fused import CLICKS, SIZE, difference, make_network, make_patch, plain

torch = pytest.importorskip("torch")

from samu_core import engine as engine_module  # noqa: E402
from samu_core.cuda_engine import cuda_engine, normalized_on_device  # noqa: E402
from samu_core.engine import fused_engine  # noqa: E402
from samu_core.intensity import normalize_patch  # noqa: E402
from samu_core.network.folded import FoldedNetwork, supports  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_the_folded_network_agrees():
    network, patch = make_network(), make_patch()
    folded = FoldedNetwork(network, "cpu", torch.float32)
    with torch.inference_mode():
        features = folded.encode(patch[None, None])
        for click in CLICKS:
            logits = folded.decode(features, torch.tensor([click]))[0, 0]
            assert difference(logits, plain(network, patch, click)[0]) <= 1e-5


def test_the_folded_network_in_bfloat16_is_close_and_leaves_the_network_as_it_was():
    network, patch = make_network(1), make_patch()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = plain(network, patch, CLICKS[1])[0]
    folded = FoldedNetwork(network, "cpu", torch.bfloat16)
    with torch.inference_mode():
        logits = folded.decode(folded.encode(patch[None, None]), torch.tensor([CLICKS[1]]))[0, 0]
    assert logits.dtype == torch.float32 and 0 < difference(logits, expected) < 0.03
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(plain(network, patch, CLICKS[1])[0], expected)


def test_nothing_is_copied_from_the_host_once_it_is_warm(monkeypatch):
    """A copy from pageable memory cannot be captured as a CUDA graph."""
    folded = FoldedNetwork(make_network(), "cpu", torch.float32)
    patch, position = make_patch()[None, None], torch.tensor([CLICKS[1]])
    with torch.inference_mode():
        folded.decode(folded.encode(patch), position)

        def refuse(*_arguments, **_options):
            raise AssertionError("a tensor was made from numbers of the host")

        for name in ("tensor", "as_tensor", "from_numpy"):
            monkeypatch.setattr(torch, name, refuse)
        monkeypatch.setattr(torch.Tensor, "item", refuse)
        monkeypatch.setattr(torch.Tensor, "tolist", refuse)
        set_item = torch.Tensor.__setitem__

        def refuse_numbers(tensor, place, value):
            """Slices are filled on the device; places given as tensors get the number as a copy."""
            gathered = any(
                isinstance(index, torch.Tensor) for index in (place if isinstance(place, tuple) else [place])
            )
            assert not gathered or isinstance(value, torch.Tensor), "a number of the host was written"
            set_item(tensor, place, value)

        monkeypatch.setattr(torch.Tensor, "__setitem__", refuse_numbers)
        folded.decode(folded.encode(patch), position)


@pytest.mark.parametrize("modality", ["CT", "MR", None])
@pytest.mark.parametrize("case", ["complete", "partial", "constant", "magnitudes", "huge"])
def test_normalisation_on_the_device_equals_numpys(modality, case):
    rng = np.random.default_rng(0)
    patch = rng.normal(-100, 600, (8, 9, 10)).astype(np.float32)
    if case == "partial":
        patch[:3] = np.nan
        patch[5, 5, 5] = np.inf
    elif case == "constant":
        patch[:] = 7
    elif case == "magnitudes":
        patch = np.abs(patch)
    elif case == "huge":
        patch *= np.float32(1e35)
    ours = normalized_on_device(torch.from_numpy(patch), modality).numpy()
    np.testing.assert_allclose(ours, normalize_patch(patch, modality), rtol=1e-5, atol=2e-5)


def test_a_patch_without_image_is_not_a_number():
    assert normalized_on_device(torch.full((4, 4, 4), float("nan")), "CT").isnan().all()


def test_other_networks_and_devices_have_no_graphs():
    assert not supports(make_network(maps="none"))
    assert not supports(make_network(normalisation="group"))
    assert not supports(torch.nn.Conv3d(1, 1, 1))
    assert cuda_engine(make_network(), "cpu", "float32", SIZE) is None
    assert cuda_engine(make_network(maps="none"), "cuda", "float16", SIZE) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_engine_is_refused_cleanly():
    assert fused_engine(make_network(), "cuda", "float16", SIZE) is None


def test_a_gpu_whose_memory_is_full_is_not_taken_for_an_unable_one(monkeypatch):
    from samu_core import cuda_engine as module

    def full(*_arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(module, "CudaEngine", full)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError) as caught:
        cuda_engine(make_network(), "cuda", "float16", SIZE)
    assert engine_module.is_out_of_memory(caught.value)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_graphs_agree_with_the_plain_network(precision):
    network, patch = make_network(), make_patch()
    engine = cuda_engine(network, "cuda", precision, SIZE)
    assert engine is not None
    features, mask = engine.encode(patch.numpy()), bright_part(patch)
    for click in CLICKS:
        logits = torch.from_numpy(engine.decode(features, np.array(click)))
        limit = 1e-3 if precision == "float32" else 0.03  # TF32 convolutions
        assert difference(logits, plain(network, patch, click)[0]) <= limit
        again = torch.from_numpy(engine.decode_again(features, np.array(click), mask.numpy()))
        assert difference(again, asked(network, patch, click, mask)) <= limit
        assert torch.equal(torch.from_numpy(engine.decode(features, np.array(click))), logits)
    engine.encode(patch.numpy() * 2)
    with pytest.raises(ValueError, match="overwritten"):
        engine.decode(features, np.array(CLICKS[0]))
