"""The weights file: what comes back, and what is said of files that are missing, cut, altered or foreign."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core import weights  # noqa: E402
from samu_core.errors import WeightsError  # noqa: E402
from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402

CONFIG = SAMUConfig(channels=(8, 16, 16, 16, 16, 16), embedding=32)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SAMU(CONFIG).eval()


@pytest.fixture
def saved(tmp_path, network):
    path = tmp_path / "samu.npz"
    checksum = weights.save_weights(path, network, {"name": "test", "dice": 0.5})
    return path, checksum


def test_saved_weights_give_nearly_the_same_logits(saved, network):
    path, _ = saved
    loaded = weights.load_network(path)
    assert loaded.config == network.config and not loaded.training
    patch, prompt = torch.randn(1, 1, 32, 32, 32), PointPrompt.from_fraction((0.5, 0.4, 0.6))
    with torch.no_grad():
        expected, found = network(patch, prompt), loaded(patch, prompt)
    assert (found - expected).abs().mean() < 0.03 * expected.std()
    assert not torch.equal(found, expected), "int8 should have cost something, or nothing was quantised"


def test_every_tensor_is_within_half_a_step_of_what_was_saved(saved, network):
    loaded = weights.load_network(saved[0]).state_dict()
    for name, tensor in network.state_dict().items():
        step = tensor.abs().max().item() / 127 if tensor.numel() >= weights.LEAST_QUANTISED else 0
        assert (loaded[name].float() - tensor.float()).abs().max().item() <= 0.55 * step + 1e-6, name


def test_coarser_steps_of_large_tensors_make_a_smaller_file(saved, network, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "LARGE", 5000)
    coarse = tmp_path / "coarse.npz"
    weights.save_weights(coarse, network, {}, step=0.3)
    assert coarse.stat().st_size < 0.85 * saved[0].stat().st_size
    fine, loaded = (weights.load_network(path).state_dict() for path in (saved[0], coarse))
    touched = 0
    for name, tensor in network.state_dict().items():
        if tensor.dim() >= 2 and tensor.numel() >= 5000:
            axis = 1 if tensor.dim() == 5 and ".up." in name else 0
            others = [place for place in range(tensor.dim()) if place != axis]
            step = 0.3 * tensor.square().mean(others, keepdim=True).sqrt()
            assert ((loaded[name] - tensor).abs() <= 0.51 * step + 1e-6).all(), name
            touched += not torch.equal(loaded[name], fine[name])
        else:
            assert torch.equal(loaded[name], fine[name]), name
    assert touched


def test_info_tells_checksum_parameters_and_what_was_noted(saved, network):
    path, checksum = saved
    info = weights.read_info(path)
    assert info["sha256"] == checksum == weights.sha256(path)
    assert info["name"] == "test" and info["dice"] == 0.5
    assert info["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_files_from_before_the_limits_are_read_without_them(saved, monkeypatch, tmp_path):
    network = SAMU(CONFIG).eval()
    old = {key: value for key, value in CONFIG.to_dict().items() if key != "limits"}
    monkeypatch.setattr(SAMUConfig, "to_dict", lambda config: old)
    weights.save_weights(tmp_path / "old.npz", network, {})
    torch.save({"config": old, "ema": network.state_dict()}, tmp_path / "old.pt")
    for name in ("old.npz", "old.pt"):
        assert not weights.load_network(tmp_path / name).config.limits
    assert weights.load_network(saved[0]).config.limits


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        weights.load_network(tmp_path / "absent.npz")


def test_a_truncated_file_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match="truncated"):
        weights.load_network(path)


@pytest.mark.parametrize("content", [b"", b"not an archive at all"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "samu.npz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated or no weights"):
        weights.load_network(path)


def test_a_foreign_archive_is_refused(tmp_path):
    path = tmp_path / "foreign.npz"
    np.savez(path, picture=np.zeros(3))
    with pytest.raises(WeightsError, match="no SAMU weights"):
        weights.load_network(path)


def test_an_archive_with_pickled_objects_is_not_unpickled(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, meta=np.array([{"format": weights.FORMAT}], dtype=object))
    with pytest.raises(WeightsError):
        weights.load_network(path)


def test_a_newer_format_asks_for_an_update(tmp_path, network, monkeypatch):
    path = tmp_path / "newer.npz"
    monkeypatch.setattr(weights, "VERSION", 99)
    weights.save_weights(path, network, {})
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="newer"):
        weights.load_network(path)


def test_the_bundled_file_must_have_the_checksum_in_the_code(saved, monkeypatch):
    path, checksum = saved
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(weights, "find_bundled", lambda: path)
    monkeypatch.setattr(weights, "BUNDLED_SHA256", checksum)
    weights.load_network()
    monkeypatch.setattr(weights, "BUNDLED_SHA256", "0" * 64)
    with pytest.raises(WeightsError, match="checksum"):
        weights.load_network()


def test_the_environment_chooses_other_weights(saved, monkeypatch, tmp_path):
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(saved[0]))
    assert weights.find_bundled() == saved[0]
    assert weights.load_network().config == CONFIG
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(tmp_path / "absent.npz"))
    with pytest.raises(WeightsError, match=weights.ENVIRONMENT_VARIABLE):
        weights.find_bundled()


def test_saving_leaves_nothing_behind_when_it_fails(tmp_path, network, monkeypatch):
    path = tmp_path / "samu.npz"
    path.write_bytes(b"old")

    def fail(*_args, **_arrays):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        weights.save_weights(path, network, {})
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["samu.npz"]
