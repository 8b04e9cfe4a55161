"""Linear probes: logistic regression of one class, of several classes one against the rest, and
ridge regression of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from .targets import Standard, Task, quality

Predict = Callable[[np.ndarray], np.ndarray]

#: Inverse strengths of the L2 penalty that are tried: scikit-learn's C, and 1 / alpha.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_MOST_ITERATIONS = 500


def fit_linear(
    task: Task,
    x: np.ndarray,
    values: np.ndarray,
    strength: float,
    standard: Standard | None = None,
) -> Predict:
    """The probe of one strength, fitted to standardised features.

    x: [n, dim], which are standardised by themselves, or as `standard` says. Returns what makes of
    [m, dim] the probabilities [m, classes], or numbers [m].
    The objective is scikit-learn's: strength * the sum of the files' losses + half the square of
    the weights; the intercept is free.
    """
    standard = standard or Standard.of(x)
    fit = {"class": _fit_class, "classes": _fit_classes, "number": _fit_number}[task.kind]
    predict = fit(standard(x), values, strength, task.n_classes)
    return lambda given: predict(standard(given))


def choose_strength(
    task: Task,
    fit: tuple[np.ndarray, np.ndarray],
    choose: tuple[np.ndarray, np.ndarray],
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """The strength that is best on `choose`, fitted on `fit`, both (features, values); of equals
    the smallest one, which is the strongest penalty."""
    if len(choose[1]) == 0:
        return 1.0
    best = max(
        (quality(task, fit_linear(task, *fit, strength)(choose[0]), choose[1]), -strength)
        for strength in strengths
    )
    return -best[1]


def _fit_class(x: np.ndarray, values: np.ndarray, strength: float, n_classes: int) -> Predict:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(values)
    model = None
    if len(present) > 1:
        model = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
        with warnings.catch_warnings():
            # Of separable classes under a weak penalty, which a stronger one beats or equals.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, values)

    def predict(given: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(given), n_classes))
        scores[:, present] = 1.0 if model is None else model.predict_proba(given)
        return scores

    return predict


def _fit_classes(x: np.ndarray, values: np.ndarray, strength: float, n_classes: int) -> Predict:
    """One logistic regression a class. Their sum is minimised as one, which has the same minimum
    and takes one product of matrices a step for all classes."""
    from scipy.optimize import minimize

    n, dim = x.shape
    sign = 2 * values - 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, free = flat[: dim * n_classes].reshape(dim, n_classes), flat[dim * n_classes :]
        margin = sign * (x @ weights + free)
        total = strength * np.logaddexp(0, -margin).sum() + 0.5 * (weights**2).sum()
        slope = -strength * sign * _logistic(-margin)
        return total, np.concatenate([(x.T @ slope + weights).ravel(), slope.sum(0)])

    share = np.clip(values.mean(0), 0.5 / n, 1 - 0.5 / n)
    begin = np.concatenate([np.zeros(dim * n_classes), np.log(share / (1 - share))])
    found = minimize(
        loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS}
    ).x
    weights, free = found[: dim * n_classes].reshape(dim, n_classes), found[dim * n_classes :]
    return lambda given: _logistic(given @ weights + free)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _fit_number(x: np.ndarray, values: np.ndarray, strength: float, _: int) -> Predict:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=1 / strength).fit(x, values).predict
