"""The cheapest ways from a click: right against a plain search, and what the maps made of them mean."""

import heapq
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core.network import paths  # noqa: E402
from samu_core.network.averages import halved, smooth  # noqa: E402
from samu_core.network.click_maps import connectedness, local_spread  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402


def at(*position):
    return PointPrompt(torch.tensor([position], dtype=torch.float32))


def search(cost, seed, spacing, peak):
    """Dijkstra's algorithm over the six neighbours."""
    best = np.full(cost.shape, np.inf)
    best[seed] = 0.0
    queue = [(0.0, seed)]
    while queue:
        value, voxel = heapq.heappop(queue)
        if value > best[voxel]:
            continue
        for axis, step in itertools.product(range(3), (-1, 1)):
            other = tuple(v + step * (axis == n) for n, v in enumerate(voxel))
            if min(other) < 0 or any(o >= s for o, s in zip(other, cost.shape)):
                continue
            mean = (cost[voxel] + cost[other]) / 2 * spacing[axis]
            found = max(value, cost[other]) if peak else value + mean
            if found < best[other]:
                best[other] = found
                heapq.heappush(queue, (found, other))
    return best


@pytest.mark.parametrize("peak", [False, True])
def test_ways_are_those_of_a_plain_search(peak, monkeypatch):
    monkeypatch.setattr(paths, "SWEEPS", 20)  # as many bends as random costs ask for
    cost = torch.rand(2, 6, 7, 5, generator=torch.Generator().manual_seed(1)).square()
    seeds, spacing = [(1, 2, 3), (5, 0, 4)], [3.0, 1.0, 2.0]
    index = [torch.tensor(values) for values in zip(*seeds)]
    found = paths.cheapest_ways(cost, cost, index, spacing)[peak]
    for sample, seed in enumerate(seeds):
        expected = search(cost[sample].double().numpy(), seed, spacing, peak)
        np.testing.assert_allclose(found[sample].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 6, 7, 5), (1, 16, 8, 1)])
def test_jumps_for_a_gpu_find_what_planes_find(shape):
    generator = torch.Generator().manual_seed(3)
    cost, unlike = torch.rand(2, *shape, generator=generator).square().unbind(0)
    index = [torch.tensor([size // 3] * shape[0]) for size in shape[1:]]
    spacing = [3.0, 1.0, 2.0]
    by_planes = paths.cheapest_ways(cost, unlike, index, spacing)
    for ours, theirs in zip(paths._by_jumps(cost, unlike, index, spacing), by_planes):
        torch.testing.assert_close(ours, theirs)


def test_a_way_round_a_wall_is_found_with_the_sweeps_that_are_made():
    cost = torch.zeros(1, 16, 16, 16)
    cost[:, :, 8, :12] = 1.0  # a wall with a gap at the far end
    seed = [torch.tensor([8]), torch.tensor([2]), torch.tensor([2])]
    length, peak = paths.cheapest_ways(cost, cost, seed, [1.0] * 3)
    assert peak[0, 8, 14, 2] == 0 and length[0, 8, 14, 2] == 0
    cost[:, :, 8, 12:] = 0.5
    length, peak = paths.cheapest_ways(cost, cost, seed, [1.0] * 3)
    assert peak[0, 8, 14, 2] == 0.5 and length[0, 8, 14, 2] == pytest.approx(0.5)


def test_the_click_of_the_seed_lies_in_its_voxel():
    index = paths.voxel_of(torch.tensor([[0.0, 0.49, 1.0]]), (4, 4, 8))
    assert [value.item() for value in index] == [0, 1, 7]


def test_two_like_things_with_something_unlike_between_are_told_apart():
    patch = torch.zeros(1, 1, 32, 32, 32)
    patch[..., 4:14] = patch[..., 18:28] = 1.0
    click = at(0.5, 0.5, 9 / 32)
    smoothed = smooth(patch)
    maps = connectedness(halved(smoothed[:, 0]), torch.ones(1), local_spread(smoothed, click), click)[0]
    assert maps.shape == (4, 16, 16, 16)
    assert (maps[:, 8, 8, 5] > 0.9).all(), "the clicked thing"
    assert (maps[1:, 8, 8, 11] < 0.65).all() and maps[0, 8, 8, 11] < 0.2, "the other one"


def test_a_millimetre_costs_the_same_in_a_crop_of_the_field_of_view():
    patch = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = torch.zeros(1, 1, 64, 64, 64)
    whole[..., 16:48, 16:48, 16:48] = patch
    spread = torch.full((1,), 0.1)
    found = connectedness(halved(whole[:, 0]), torch.full((1,), 0.5), spread, at(0.5, 0.5, 0.5))
    crop = PointPrompt(torch.tensor([[0.5, 0.5, 0.5]]), span=0.5)
    inner = connectedness(halved(patch[:, 0]), torch.full((1,), 0.5), spread, crop)
    torch.testing.assert_close(found[..., 14:18, 14:18, 14:18], inner[..., 6:10, 6:10, 6:10])
