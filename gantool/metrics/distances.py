"""Distances between two sets of feature vectors: pure functions, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of the normal distributions fitted to two sets. Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), with the last trace taken as the sum of the square roots of the
    eigenvalues of R S2 R, R = S1^(1/2): that matrix is symmetric and positive, so nothing complex appears and fewer
    samples than features do no harm. A set with a number that is not finite is infinitely far.

    Shape:
        real: [N, D], at least 2 rows. fake: [M, D], at least 2 rows.
    """
    real, fake = real.detach().cpu().double(), fake.detach().cpu().double()
    if not (real.isfinite().all() and fake.isfinite().all()):
        return math.inf
    real_covariance, fake_covariance = (_covariance(features) for features in (real, fake))
    values, vectors = torch.linalg.eigh(real_covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ fake_covariance @ root).clamp_min(0).sqrt().sum()
    means = (real.mean(0) - fake.mean(0)).square().sum()
    distance = means + real_covariance.trace() + fake_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def _covariance(features: Tensor) -> Tensor:
    """Give the covariance over N - 1: [N, D] -> [D, D], also for a D of 1."""
    size = features.shape[1]
    return features.T.cov().reshape(size, size)
