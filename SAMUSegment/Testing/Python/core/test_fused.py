"""The network in fused operations: the same numbers as the plain one, and the plain one where it fails."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core.engine import FusedEngine, TorchEngine, choose_precision, fused_engine  # noqa: E402
from samu_core.errors import SamuError  # noqa: E402
from samu_core.network import SAMU, SAMUConfig, fused  # noqa: E402
from samu_core.network.fused.buffers import Buffers  # noqa: E402
from samu_core.network.fused.decoder import OUTSIDE  # noqa: E402
from samu_core.network.fused.engine import FusedNetwork  # noqa: E402
from samu_core.network.fused.region import RegionOfInterest  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402

SIZE = 32
NARROW = {"channels": (16, 16, 32, 32, 32, 32), "embedding": 32}
CLICKS = [(0.5, 0.5, 0.5), (0.4, 0.55, 0.62), (0.0, 1.0, 0.26), (0.01, 0.3, 0.999)]


def make_network(seed=0, **settings) -> SAMU:
    """Random weights, and BatchNorms that do something."""
    torch.manual_seed(seed)
    network = SAMU(SAMUConfig(**{**NARROW, **settings})).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.normal_(0, 0.2)
    return network


def make_patch(shape=(SIZE,) * 3, seed=1) -> torch.Tensor:
    """Smooth noise, as images are: likeness to the click is neither 0 nor 1 everywhere."""
    noise = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.avg_pool3d(noise, 5, 1, 2) * 5)[0, 0]


def bfloat16_or_skip() -> str:
    try:
        return choose_precision("bfloat16", "cpu")
    except SamuError as error:
        pytest.skip(str(error))


def fuse(network, precision="float32", size=SIZE):
    built = fused.build(network, precision, size)
    if built is None:
        pytest.skip("this machine or torch has no fused operations")
    return built


def plain(network, patch, click):
    with torch.inference_mode():
        prompt = PointPrompt.from_fraction(click)
        logits, auxiliary = network.decode_with_auxiliary(network.encode(patch[None, None]), prompt)
    return logits[0, 0], auxiliary[0, 0]


def difference(ours, theirs) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_the_development_machine_has_fused_operations():
    """Or else every test here is skipped and nobody notices."""
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        pytest.skip("torch was built without oneDNN")
    assert fused.build(make_network(), "float32", SIZE) is not None


@pytest.mark.parametrize("settings", [{}, {"prompt": "content", "decoder_convs": (1, 1, 2, 1, 2)}])
def test_float32_agrees_with_the_plain_network(settings):
    network, patch = make_network(**settings), make_patch()
    engine = fuse(network)
    features = engine.encode(patch)
    for click in CLICKS:
        ours = engine.decode_with_auxiliary(features, PointPrompt.from_fraction(click))
        for mine, its in zip(ours, plain(network, patch, click)):
            assert its.std() > 0.01 * its.abs().max()  # there is something to agree on
            assert difference(mine, its) <= 1e-5


def test_float32_agrees_on_patches_that_are_no_cubes():
    network, patch = make_network(1), make_patch((64, 32, 96))
    engine = fuse(network)
    logits = engine.decode(engine.encode(patch), PointPrompt.from_fraction((0.7, 0.2, 0.5)))
    assert difference(logits, plain(network, patch, (0.7, 0.2, 0.5))[0]) <= 1e-5


@pytest.mark.slow
def test_the_shipped_architecture_agrees():
    network, patch = make_network(channels=SAMUConfig().channels, embedding=256), make_patch((64,) * 3)
    engine = fuse(network, size=64)
    ours = engine.decode_with_auxiliary(engine.encode(patch), PointPrompt.from_fraction(CLICKS[1]))
    for mine, its in zip(ours, plain(network, patch, CLICKS[1])):
        assert difference(mine, its) <= 1e-5


def test_bfloat16_is_close():
    network, patch = make_network(2), make_patch()
    engine = fuse(network, bfloat16_or_skip())
    features = engine.encode(patch)
    for click in CLICKS[:2]:
        logits = engine.decode(features, PointPrompt.from_fraction(click))
        expected = plain(network, patch, click)[0]
        assert 0 < difference(logits, expected) < 0.03
        # Random weights decide nothing: half the voxels lie within a rounding of any level between them.
        spread = float(expected.std())
        level = float(expected.median())
        decided = (expected - level).abs() > 0.1 * spread
        wrong = ((logits > level) != (expected > level)) & decided
        assert decided.float().mean() > 0.8 and wrong.float().mean() <= 5e-4


def test_clicks_do_not_change_the_features():
    network, patch = make_network(), make_patch()
    engine = fuse(network)
    features = engine.encode(patch)
    first = engine.decode(features, PointPrompt.from_fraction(CLICKS[0]))
    kept = first.clone()
    engine.decode(features, PointPrompt.from_fraction(CLICKS[2]))
    assert torch.equal(first, kept)  # results are the caller's, not in memory that is used again
    assert torch.equal(engine.decode(features, PointPrompt.from_fraction(CLICKS[0])), first)


def test_kept_likeness_is_the_recomputed_one():
    """Decoding everywhere keeps what the coarse levels needed; a region too large to pay off does not."""
    network = fuse(make_network())
    features, prompt = network.encode(make_patch()), PointPrompt.from_fraction(CLICKS[1])
    kept = network.decode(features, prompt)
    again = network.decode(features, prompt, RegionOfInterest(largest=0.0))
    assert torch.equal(kept, again)


def test_features_stay_good_while_somebody_holds_them():
    network = make_network()
    engine = fuse(network)
    prompt = PointPrompt.from_fraction(CLICKS[1])
    held = engine.encode(make_patch())
    before = engine.decode(held, prompt)
    other = engine.encode(make_patch(seed=2))
    assert torch.equal(engine.decode(held, prompt), before)
    assert not torch.equal(engine.decode(other, prompt), before)


def test_memory_is_used_again_from_patch_to_patch():
    engine = fuse(make_network())
    prompt = PointPrompt.from_fraction(CLICKS[1])
    places, sizes = set(), set()
    for seed in range(4):
        features = engine.encode(make_patch(seed=seed))
        engine.decode(features, prompt)
        places.add(features.finest.padded.data_ptr())
        sizes.add(engine.scratch.nbytes)
        del features
    assert len(places) == 1 and len(sizes) == 1


@pytest.mark.parametrize("click", CLICKS)
def test_region_is_exact_inside_and_negative_outside(click):
    network, patch = make_network(), make_patch((64,) * 3)
    engine = fuse(network)
    features, prompt = engine.encode(patch), PointPrompt.from_fraction(click)
    everything = engine.decode(features, prompt)
    centre = [min(int(place * 16), 15) for place in click]
    box = tuple(slice(max(n - 2, 0), min(n + 3, 16)) for n in centre)
    with torch.inference_mode():
        logits, auxiliary = engine.decoder(features, prompt, lambda coarse: box)
    inside = tuple(slice(4 * part.start, 4 * part.stop) for part in box)
    assert difference(logits[inside], everything[inside]) <= 1e-6
    outside = torch.ones_like(logits, dtype=torch.bool)
    outside[inside] = False
    assert (logits[outside] == OUTSIDE).all() and outside.any()


def test_box_of_the_region():
    coarse = torch.full((16,) * 3, -9.0)
    coarse[5:7, 8, 3:12] = 4.0
    region = RegionOfInterest(probability=0.05, margin=2, largest=0.5, step=1)
    assert region.box(coarse, PointPrompt.from_fraction((0.35, 0.5, 0.5))) == (
        slice(3, 9),
        slice(6, 11),
        slice(1, 14),
    )
    # the click is in it, even where nothing was found
    assert region.box(coarse * 0 - 9, PointPrompt.from_fraction((1.0, 0.0, 0.5))) == (
        slice(13, 16),
        slice(0, 3),
        slice(6, 11),
    )
    coarse[0, 0, 0] = coarse[15, 15, 15] = 0.0
    assert region.box(coarse, PointPrompt.from_fraction((0.5, 0.5, 0.5))) is None


@pytest.mark.parametrize("step", [4, 8])
def test_boxes_come_in_few_sizes(step):
    """Or else oneDNN keeps new code at every click: 200 clicks left 440 MiB behind."""
    coarse, sizes = torch.full((16,) * 3, -9.0), set()
    region, exact = RegionOfInterest(step=step, largest=1.0), RegionOfInterest(step=1, largest=1.0)
    for low, high in itertools.combinations(range(16), 2):
        found = coarse.clone()
        found[low:high, low:high, low:high] = 4.0
        prompt = PointPrompt.from_fraction([(low + 0.5) / 16] * 3)
        for part, needed in zip(region.box(found, prompt), exact.box(found, prompt)):
            assert 0 <= part.start <= needed.start and needed.stop <= part.stop <= 16
            sizes.add(part.stop - part.start)
    assert sizes == set(range(step, 17, step))


def test_region_is_what_the_engine_is_told():
    network = make_network()
    patch = make_patch().numpy()
    engine = fused_engine(network, "cpu", "float32", SIZE, region=True)
    if engine is None:
        pytest.skip("this machine or torch has no fused operations")
    engine.region = RegionOfInterest(probability=1 - 1e-9, step=1)
    logits = engine.decode(engine.encode(patch), np.array([0.5, 0.5, 0.5]))
    assert (logits == OUTSIDE).any() and (logits != OUTSIDE).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"maps": "none"},
        {"normalisation": "group"},
        {"attention": "bottom"},
        {"attention": "skips"},
        {"prompt": "position"},
        {"channels": (8, 16, 32, 32, 32, 32)},
        {"concatenated_levels": (1, 2)},
        {"decoder_convs": (2, 1, 1, 1, 1)},
    ],
)
def test_other_architectures_stay_plain(settings):
    network = make_network(**settings)
    assert not fused.supports(network)
    assert fused_engine(network, "cpu", "float32", SIZE) is None


def test_foreign_networks_devices_and_precisions_stay_plain():
    assert fused_engine(torch.nn.Conv3d(1, 1, 1), "cpu", "float32", SIZE) is None
    assert fused_engine(make_network(), "cuda", "float32", SIZE) is None
    assert fused_engine(make_network(), "cpu", "float16", SIZE) is None


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("_convolution_pointwise", AttributeError("no such operator")),
        ("_convolution_pointwise_", RuntimeError("could not create a primitive")),
        ("_convolution_transpose_pointwise", NotImplementedError("no kernel")),
        ("_convolution_pointwise", TypeError("unexpected argument")),
    ],
)
def test_a_missing_operation_leaves_the_plain_network(monkeypatch, name, broken):
    class Operations:
        def __getattr__(self, wanted):
            if wanted == name:
                raise broken
            return getattr(original, wanted)

    original = torch.ops.mkldnn
    monkeypatch.setattr(torch.ops, "mkldnn", Operations())
    assert fused_engine(make_network(), "cpu", "float32", SIZE) is None


def test_weights_that_cannot_be_packed_are_used_unpacked(monkeypatch):
    network, patch = make_network(), make_patch()
    fuse(network)

    def refuse(*_arguments):
        raise RuntimeError("only 4 dimensions")

    from samu_core.network.fused import operations

    monkeypatch.setattr(operations, "_packed", lambda reorder, weight, *layout: weight)
    engine = fuse(network)
    logits = engine.decode(engine.encode(patch), PointPrompt.from_fraction(CLICKS[1]))
    assert difference(logits, plain(network, patch, CLICKS[1])[0]) <= 1e-5
    monkeypatch.undo()
    weight = torch.zeros(1)
    assert operations._packed(refuse, weight) is weight


def test_a_wrong_result_leaves_the_plain_network(monkeypatch):
    decoder = FusedNetwork.decode_with_auxiliary

    def wrong(self, *arguments):
        logits, auxiliary = decoder(self, *arguments)
        return logits * 1.01, auxiliary

    network = make_network()
    fuse(network)
    monkeypatch.setattr(FusedNetwork, "decode_with_auxiliary", wrong)
    assert fused.build(network, "float32", SIZE) is None


def test_the_two_engines_are_interchangeable():
    network, patch = make_network(), make_patch().numpy()
    engine = fused_engine(network, "cpu", "float32", SIZE)
    if engine is None:
        pytest.skip("this machine or torch has no fused operations")
    assert isinstance(engine, FusedEngine)
    click = np.array(CLICKS[1])
    ours = engine.decode(engine.encode(patch), click)
    eager = TorchEngine(network, "cpu", "float32")
    theirs = eager.decode(eager.encode(patch), click)
    assert ours.dtype == theirs.dtype == np.float32 and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_buffers_grow_and_stay():
    buffers = Buffers()
    small = buffers.flat("a", (4, 4), torch.float32)
    assert buffers.flat("a", (2, 2), torch.float32).data_ptr() == small.data_ptr()
    large = buffers.volume("a", 16, (64, 64, 64), torch.float32)
    assert large.is_contiguous(memory_format=torch.channels_last_3d) and large.shape == (1, 16, 64, 64, 64)
    large.fill_(3.0)
    assert buffers.nbytes == large.numel() * 4
    assert buffers.flat("b", (3,), torch.bfloat16).dtype == torch.bfloat16
