"""AdamW and Muon as the trainer uses them."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from samu_core.errors import SamuError  # noqa: E402
from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.training.optimizer import Muon, Optimizer, orthogonalised  # noqa: E402

SMALL = SAMUConfig(channels=(8, 16, 16, 16, 16, 16))


def network():
    torch.manual_seed(0)
    return SAMU(SMALL).to(memory_format=torch.channels_last_3d)


def give_gradients(samu, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in samu.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(
            memory_format=torch.channels_last_3d if parameter.ndim == 5 else torch.preserve_format
        )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_moves_by_about_the_rate(name):
    samu = network()
    before = {key: value.detach().clone() for key, value in samu.named_parameters()}
    optimizer = Optimizer(samu, name, 1e-2, 0.0)
    optimizer.set_rate(1e-3)
    give_gradients(samu)
    optimizer.step()
    for key, value in samu.named_parameters():
        moved = (value.detach() - before[key]).square().mean().sqrt()
        assert 1e-4 < moved < 2e-3, key
    optimizer.zero_grad()
    assert all(value.grad is None for value in samu.parameters())


def test_muon_makes_the_update_of_a_convolution_orthogonal():
    samu = network()
    weight = samu.encoder.levels[2][0][0].weight
    before = weight.detach().clone()
    optimizer = Optimizer(samu, "muon", 1e-3, 0.0)
    give_gradients(samu)
    optimizer.step()
    values = torch.linalg.svdvals((weight.detach() - before).flatten(1))
    assert values.max() / values.min() < 2.5
    assert not any(p is weight for group in optimizer.parts[0].param_groups for p in group["params"])


def test_matrices_of_many_shapes_are_orthogonalised_each_for_itself():
    generator = torch.Generator().manual_seed(2)
    shapes = [(16, 40), (40, 16), (16, 16), (24, 100), (16, 300)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    for matrix, found in zip(matrices, orthogonalised(matrices)):
        assert found.shape == matrix.shape
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6 and values.max() < 1.3
        # The same singular vectors: matrix.T @ found is symmetric and has no negative eigenvalue.
        product = matrix.T @ found
        assert torch.allclose(product, product.T, atol=1e-3 * float(product.abs().max()))
        torch.testing.assert_close(found, orthogonalised([matrix])[0], rtol=1e-3, atol=1e-4)


def test_matrices_have_a_decay_of_their_own():
    samu = network()
    before = copy.deepcopy(dict(samu.named_parameters()))
    optimizer = Optimizer(samu, "muon", 1e-2, 0.0, matrix_decay=0.5)
    for parameter in samu.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(samu.named_parameters())
    weight, gain = "encoder.levels.2.0.0.weight", "encoder.levels.2.0.1.weight"
    torch.testing.assert_close(after[weight], before[weight] * (1 - 1e-2 * 0.5))
    torch.testing.assert_close(after[gain], before[gain])


def test_moments_are_kept_by_a_checkpoint():
    first, second = network(), network()
    a, b = Optimizer(first, "muon", 1e-3, 1e-2), Optimizer(second, "muon", 1e-3, 1e-2)
    give_gradients(first)
    a.step()
    second.load_state_dict(first.state_dict())
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    for samu, optimizer in ((first, a), (second, b)):
        give_gradients(samu, seed=2)
        optimizer.step()
    for one, other in zip(first.parameters(), second.parameters()):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="another optimizer"):
        Optimizer(network(), "adamw", 1e-3, 1e-2).load_state_dict(a.state_dict())


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("shape", [(32, 200), (48, 48), (200, 32)])
def test_muon_steps_as_torchs_does(shape):
    generator = torch.Generator().manual_seed(3)
    ours = torch.nn.Parameter(torch.randn(shape, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    start = ours.detach().clone()
    optimizers = (
        Muon([ours], 1e-2, 0.5),
        torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator) * torch.logspace(0, -2, shape[1])
        for parameter, optimizer in zip((ours, theirs), optimizers):
            parameter.grad = gradient.clone()
            optimizer.step()
    # torch's iterates in bfloat16
    assert (ours - theirs).norm() < 0.02 * (ours - start).norm()


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(SamuError, match="adamw, muon"):
        Optimizer(network(), "sgd", 1e-3, 1e-2)


def test_muon_wants_the_memory_that_the_trainer_uses():
    with pytest.raises(ValueError, match="channels_last_3d"):
        Optimizer(SAMU(SMALL), "muon", 1e-3, 1e-2)
