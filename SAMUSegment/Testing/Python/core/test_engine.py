"""Choice of device and precision, and the network run on arrays."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import samu_core
from samu_core import engine as engine_module
from samu_core.errors import SamuError

torch = pytest.importorskip("torch")


def run(code):
    """Exit code of a fresh Python."""
    root = str(Path(samu_core.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


class Network(torch.nn.Module):
    """One convolution, and the click's distance from the patch's lower corner added to it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv3d(1, 1, 3, padding=1)
        self.flat = torch.nn.Parameter(torch.zeros(1, 1, 1, 1))  # four dimensions: not for channels-last

    def encode(self, patch):
        return self.convolution(patch)

    def decode(self, features, prompt):
        return features + prompt.position.norm() + self.flat[None]


def test_bfloat16_is_close_to_float32():
    patch = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    results = {}
    for precision in ("float32", "bfloat16"):
        engine = engine_module.TorchEngine(Network(), "cpu", precision)
        features = engine.encode(patch)
        assert features.dtype == getattr(torch, precision)
        results[precision] = engine.decode(features, np.array([0.5, 0.25, 0.75]))
        assert results[precision].dtype == np.float32 and results[precision].shape == patch.shape
    difference = np.abs(results["float32"] - results["bfloat16"]).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "mps", ""])
def test_unknown_devices_are_refused(device):
    with pytest.raises(SamuError, match="device"):
        engine_module.choose_device(device)


def test_device_and_precision_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine_module.choose_device("auto") == "cpu"
    with pytest.raises(SamuError, match="no CUDA device"):
        engine_module.choose_device("cuda")
    for supported, wanted in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(engine_module, "cpu_has_bfloat16", lambda torch, s=supported: s)
        monkeypatch.setattr(engine_module, "_bfloat16_is_faster", lambda: True)
        assert engine_module.choose_precision("auto", "cpu") == wanted
    monkeypatch.setattr(engine_module, "_bfloat16_is_faster", lambda: False)
    assert engine_module.choose_precision("auto", "cpu") == "float32", "instructions alone do not help"
    assert engine_module.choose_precision("bfloat16", "cpu") == "bfloat16", "but one may ask for it"
    with pytest.raises(SamuError, match="float16"):
        engine_module.choose_precision("float16", "cpu")
    monkeypatch.setattr(engine_module, "cpu_has_bfloat16", lambda torch: False)
    with pytest.raises(SamuError, match="does not compute in bfloat16"):
        engine_module.choose_precision("bfloat16", "cpu")
    with pytest.raises(SamuError, match="one of"):
        engine_module.choose_precision("int8", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert engine_module.choose_device("auto") == engine_module.choose_device("cuda") == "cuda"
    assert engine_module.choose_device("cuda:0") == "cuda:0"
    with pytest.raises(SamuError, match="no CUDA device 1"):
        engine_module.choose_device("cuda:1")
    for supported, wanted in ((False, "float16"), (True, "bfloat16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda s=supported: s)
        assert engine_module.choose_precision("auto", "cuda") == wanted


@pytest.mark.parametrize(
    ("says", "machine", "avx512", "amx", "wanted"),
    [
        (True, "x86_64", True, False, True),
        (True, "AMD64", False, True, True),
        (True, "x86_64", False, False, False),  # AVX-512 alone: oneDNN would convert to float32 and back
        (False, "x86_64", True, True, False),  # the instruction set is capped
        (True, "arm64", False, False, True),
    ],
)
def test_bfloat16_counts_only_where_the_cpu_has_instructions(monkeypatch, says, machine, avx512, amx, wanted):
    operators = SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=lambda: says))
    cpu = SimpleNamespace(_is_avx512_bf16_supported=lambda: avx512, _is_amx_tile_supported=lambda: amx)
    monkeypatch.setattr(engine_module.platform, "machine", lambda: machine)
    assert engine_module.cpu_has_bfloat16(SimpleNamespace(ops=operators, cpu=cpu)) is wanted


@pytest.mark.parametrize(("flags", "wanted"), [("avx512f avx512_bf16", True), ("avx512f avx512_vnni", False)])
def test_an_older_torch_leaves_the_question_to_the_system(monkeypatch, tmp_path, flags, wanted):
    operators = SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(engine_module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(engine_module, "CPU_INFO", tmp_path / "cpuinfo")
    torch_of_old = SimpleNamespace(ops=operators, cpu=SimpleNamespace())
    assert engine_module.cpu_has_bfloat16(torch_of_old) is wanted
    monkeypatch.setattr(engine_module, "CPU_INFO", tmp_path / "none")
    assert engine_module.cpu_has_bfloat16(torch_of_old) is False


def test_missing_torch_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SamuError, match="PyTorch is missing"):
        engine_module.import_torch()


def test_a_torch_that_cannot_be_loaded_is_named(monkeypatch):
    import builtins

    genuine = builtins.__import__

    def broken(name, *rest, **more):
        if name == "torch":
            raise OSError("[WinError 126] c10.dll")
        return genuine(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(SamuError, match="cannot be loaded.*c10.dll.*reinstall"):
        engine_module.import_torch()


def test_garbage_is_collected_again_once_torch_is_there(monkeypatch):
    code = (
        "import gc, sys, samu_core.engine as engine; states = []\n"
        "class Seen:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': states.append(gc.isenabled())\n"
        "sys.meta_path.insert(0, Seen()); engine.import_torch()\n"
        "sys.exit(states != [False] or not gc.isenabled())"
    )
    assert run(code) == 0
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SamuError):
        engine_module.import_torch()
    assert gc.isenabled()


def test_importing_the_predictor_does_not_import_torch():
    code = "import sys, samu_core.predictor, samu_core.io; sys.exit('torch' in sys.modules)"
    assert run(code) == 0


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, samu_core; sys.exit(bool({'torch', 'numpy', 'SimpleITK'} & set(sys.modules)))"
    assert run(code) == 0


def test_what_importing_torch_takes_is_loading_not_sampling():
    code = """
import sys
import numpy as np
from samu_core.geometry import Volume
from samu_core.predictor import Predictor
volume = Volume(np.random.default_rng(0).integers(-200, 300, (40, 40, 40)).astype(np.int16), np.eye(4))
stages = []
predictor = Predictor(device="cpu", patch_size=32, second_look=False)
predictor.predict(volume, (20, 20, 20), progress=stages.append)
sys.exit(stages != ["load", "sample", "normalize", "load", "encode", "decode"])
"""
    assert run(code) == 0


def test_libraries_are_told_to_keep_little_memory_unless_they_were_told_otherwise():
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "MKL_DISABLE_FAST_MM")
    code = f"""
import os, sys
os.environ["{names[0]}"] = "5"
os.environ.pop("{names[1]}", None)
from samu_core.engine import import_torch
import_torch()
sys.exit([os.environ[name] for name in {names}] != ["5", "1"])
"""
    assert run(code) == 0
