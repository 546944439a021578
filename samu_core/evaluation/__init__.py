"""How good one click is: the protocol, the metrics, the classical baselines, and the tables.

    from samu_core.evaluation import evaluate_network
    result = evaluate_network(network, "data", split="dev", clicks=2)
    print(result.mean, result.per_dataset)

Not part of inference: it needs scipy beside torch, numpy and SimpleITK (extra `train` or `dev`).
"""

from __future__ import annotations

__all__ = ["EvaluationResult", "Options", "evaluate", "evaluate_network"]


def __getattr__(name):
    # Lazy, so that `samu evaluate --help` does not wait for scipy and SimpleITK.
    if name == "EvaluationResult":
        from samu_core.evaluation.results import EvaluationResult

        return EvaluationResult
    if name in __all__:
        from samu_core.evaluation import protocol

        return getattr(protocol, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
