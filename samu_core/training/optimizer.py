"""AdamW, or Muon for the matrices and AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from samu_core.errors import SamuError
from samu_core.training.settings import TrainingSettings

OPTIMIZERS = ("adamw", "muon")
LEAST_SIDE = 16  # of a weight taken as a matrix; orthogonalising smaller ones gains nothing

# Newton-Schulz iteration (Jordan et al. 2024): odd polynomial of the singular values, and rounds of it.
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal (Muon, Jordan et al. 2024).

    Same steps as torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), which iterates on whole matrices in
    bfloat16: on a CPU without bfloat16 that takes half as long as the rest of a training step. Here the
    iteration runs on the small Gram matrix in float32.

    Args:
        matrices: (m, n) parameters.
        rate: as AdamW's.
        weight_decay: decoupled, taken times the rate.
    """

    def __init__(self, matrices: list[nn.Parameter], rate: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Change the matrices that have a gradient, all at once: a GPU takes longer to launch the steps
        for one than to compute them."""
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            gradients = [matrix.grad for matrix in matrices]
            momenta = [self._momentum(matrix) for matrix in matrices]
            if not matrices:
                continue
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = orthogonalised(torch._foreach_lerp(gradients, momenta, MOMENTUM))
            torch._foreach_mul_(
                updates, [-group["lr"] * 0.2 * max(matrix.shape) ** 0.5 for matrix in matrices]
            )
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, updates)

    def _momentum(self, matrix: nn.Parameter) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        return state["momentum_buffer"]


def orthogonalised(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each matrix (m, n) with its singular vectors and singular values near 1 (.7 to 1.2), float32.

    The iteration multiplies by polynomials of the Gram matrix, which commute: all of them are multiplied up
    first, so that the long side is met twice rather than in every round. Matrices with an equal short side go
    through it together.
    """
    is_wide = [len(matrix) <= matrix.shape[1] for matrix in matrices]
    wide = [matrix.float() if fits else matrix.float().T for matrix, fits in zip(matrices, is_wide)]
    lengths = [length.clamp(min=1e-7) for length in torch._foreach_norm(wide)]
    wide = torch._foreach_div(wide, lengths)
    results = list(wide)
    for side in {len(rows) for rows in wide}:
        places = [place for place, rows in enumerate(wide) if len(rows) == side]
        products = _polynomial(torch.stack([wide[place] @ wide[place].T for place in places]))
        for place, product in zip(places, products):
            found = product @ wide[place]
            results[place] = found if is_wide[place] else found.T
    return results


def _polynomial(grams: torch.Tensor) -> torch.Tensor:
    """The product of the rounds' polynomials of Gram matrices (count, m, m), for each of them."""
    a, b, c = POLYNOMIAL
    unit = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    products = unit.expand_as(grams)
    for _ in range(ROUNDS):
        factors = a * unit + b * grams + c * grams @ grams
        products = factors @ products
        grams = factors @ grams @ factors
    return products


class Optimizer:
    """What the trainer steps, by the name of `TrainingSettings.optimizer`.

    "muon" (`Muon`) makes the update of a weight matrix orthogonal, so that rare directions learn as fast as
    frequent ones. Convolutions are taken as matrices of output channels by everything else. The learning rate
    is AdamW's (updates of the same size).

    Args:
        network: its parameters are changed in place; for "muon" in torch.channels_last_3d memory.
        name: one of OPTIMIZERS.
        rate, weight_decay: of AdamW; the rate is Muon's, too.
        matrix_decay: weight decay of Muon, `weight_decay` if None. Its steps are as large in directions that
            hold nothing but noise, and only decay takes back what gathers there.

    Raises:
        SamuError: an unknown name.
        ValueError: the network's memory does not allow views of its convolutions as matrices.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        rate: float,
        weight_decay: float,
        matrix_decay: float | None = None,
    ) -> None:
        if name not in OPTIMIZERS:
            raise SamuError(f"optimizer is one of {', '.join(OPTIMIZERS)}, not {name!r}.")
        parameters = list(network.parameters())
        self.matrices: list[tuple[nn.Parameter, nn.Parameter]] = []
        if name == "muon":
            large = [p for p in parameters if p.ndim >= 2 and min(len(p), p[0].numel()) >= LEAST_SIDE]
            self.matrices = [(p, nn.Parameter(_matrix(p.detach()))) for p in large]
            if any(matrix.data_ptr() != p.data_ptr() for p, matrix in self.matrices):
                raise ValueError("muon takes networks in torch.channels_last_3d memory")
        held = {id(parameter) for parameter, _ in self.matrices}
        rest = [p for p in parameters if id(p) not in held]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=rate, weight_decay=weight_decay)
        ]
        if self.matrices:
            views = [matrix for _, matrix in self.matrices]
            matrix_decay = weight_decay if matrix_decay is None else matrix_decay
            self.parts.append(Muon(views, rate, matrix_decay))
        self.parameters = parameters

    @classmethod
    def of_run(cls, network: nn.Module, settings: TrainingSettings) -> Optimizer:
        """The one that a run's settings ask for."""
        return cls(
            network,
            settings.optimizer,
            settings.learning_rate,
            settings.weight_decay,
            settings.matrix_decay,
        )

    def set_rate(self, rate: float) -> None:
        """Learning rate of everything from the next step on."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Change the parameters by their gradients."""
        for parameter, matrix in self.matrices:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        if len(self.parts) == 1:
            return self.parts[0].state_dict()
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the moments of another run. ValueError when it had another optimizer."""
        states = state.get("parts", [state])
        if len(states) != len(self.parts):
            raise ValueError("the checkpoint was made with another optimizer")
        for part, values in zip(self.parts, states):
            part.load_state_dict(values)


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """(O, ...) as (O, everything else); a view where the memory allows it, as it does for parameters."""
    if weight.ndim == 5:
        weight = weight.permute(0, 2, 3, 4, 1)  # channels-last memory
    return weight.flatten(1)
