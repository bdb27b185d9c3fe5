"""Comparisons of two sets of feature vectors: pure functions, on the CPU, in float64.

A set is [N, D]: N images, at least one, and D features. `real` and `fake` are the features of real and of generated
images. Only numbers that were measured with the same features and the same numbers of images are comparable. Each
function has a worst value, named in its docstring, for a set with a number that is not finite.

torch-fidelity, torchmetrics and prdc compute some of these numbers; the tests compare with all three.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from gantool.devices import one_thread

MAX_PAIRWISE = 2_000_000  # distances held at a time: 16 MB
SINGULAR = 1e-10  # of the largest eigenvalue; smaller ones count as 0
MAX_EXACT_KERNEL = 2000  # images up to which the kernel distance compares all pairs
SUBSETS, SUBSET = 20, 1000  # subsets, and images in each, whose kernel distances are averaged otherwise

F = TypeVar("F", bound=Callable[..., Any])


class PrecisionRecall(NamedTuple):
    """Share of generated images within the real ones' reach, and of real images within the generated ones'; 0 to 1."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Real neighbourhoods around a generated image, 1 for equal sets; share of those with a generated image."""

    density: float
    coverage: float


class NearestNeighbour(NamedTuple):
    """How often an image's nearest neighbour is of its own set, 0 to 1: all images, real ones, generated ones."""

    accuracy: float
    real: float
    fake: float


class Support(NamedTuple):
    """An estimate of the number of distinct images, and the pairs of near-identical ones that it is based on."""

    size: float
    collisions: int


class FrechetTerms(NamedTuple):
    """A Fréchet distance, and each image's influence on it, divided by the number of images: [N] and [M]."""

    distance: float
    real: Tensor
    fake: Tensor


def _comparison(worst: Any) -> Callable[[F], F]:
    """Return a decorator: the function gets float64 tensors on one thread, or returns `worst` if one is not finite."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        @one_thread()
        def compare(*given: Any, **options: Any) -> Any:
            double = [part.detach().cpu().double() if isinstance(part, Tensor) else part for part in given]
            finite = all(bool(part.isfinite().all()) for part in double if isinstance(part, Tensor))
            return function(*double, **options) if finite else worst

        return cast(F, compare)

    return decorate


@_comparison(math.inf)
def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Compute the Fréchet distance of the normal distributions fitted to two sets, at worst infinity.

    Heusel et al. 2017, arXiv:1706.08500, eq. 6: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). The last trace is the
    sum of the square roots of the eigenvalues of R S2 R, R = S1^(1/2). That matrix is symmetric and positive, so that
    nothing complex appears, also with fewer samples than features. The covariance of one image is 0.
    """
    real_covariance, fake_covariance = _covariance(real), _covariance(fake)
    root = _root(real_covariance)
    cross = torch.linalg.eigvalsh(root @ fake_covariance @ root).clamp_min(0).sqrt().sum()
    means = (real.mean(0) - fake.mean(0)).square().sum()
    distance = means + real_covariance.trace() + fake_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


@one_thread()
def frechet_terms(real: Tensor, fake: Tensor) -> FrechetTerms:
    """Compute the Fréchet distance and each image's part of its sampling error.

    The distance is a smooth function of two means and two covariances. Its influence function (Hampel 1974, JASA 69) is
    its change when one image becomes a little more frequent. Over independent images, the sum of the squared terms is
    the variance of the distance to first order. That order vanishes near the distance of a set and itself, so the
    deviation of the floor must be added. All terms are 0 if a number is not finite.
    """
    distance = frechet_distance(real, fake)
    real, fake = (part.detach().cpu().double() for part in (real, fake))
    if not math.isfinite(distance):
        return FrechetTerms(distance, real.new_zeros(len(real)), fake.new_zeros(len(fake)))
    return FrechetTerms(distance, _influence(real, fake), _influence(fake, real))


@_comparison(math.inf)
def kernel_distance(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """Compute the squared maximum mean discrepancy of two sets, at worst infinity.

    Binkowski et al. 2018, arXiv:1801.01401, sec. 4 (there KID), with the kernel (x.y / D + 1)^3. The estimate has no
    bias: its mean is 0 for two samples of one distribution, so that it is often negative. If a set has more than 2000
    images, subsets drawn with `seed` are compared.
    """
    if max(len(real), len(fake)) <= MAX_EXACT_KERNEL:
        return _discrepancy(real, fake)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(SUBSETS):
        some, others = (torch.randperm(len(features), generator=generator)[:SUBSET] for features in (real, fake))
        parts.append(_discrepancy(real[some], fake[others]))
    return math.fsum(parts) / SUBSETS


@_comparison(PrecisionRecall(0.0, 0.0))
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Compute improved precision and recall, at worst 0. Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2.

    An image is within a set's reach if it is nearer to some image of that set than that image's k-th nearest neighbour
    in the set. A set of one image reaches nothing.
    """
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    reached = torch.zeros(len(fake), dtype=torch.bool)
    reaching = 0
    for rows, reach in zip(_chunks(real, fake), _chunks(real_reach, fake), strict=True):
        distances = _distances(rows, fake)
        reached |= (distances < reach[:, None]).any(0)
        reaching += int((distances < fake_reach).any(1).sum())
    return PrecisionRecall(float(reached.double().mean()), reaching / len(real))


@_comparison(DensityCoverage(0.0, 0.0))
def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Compute density and coverage, at worst 0. Naeem et al. 2020, arXiv:2002.09797, sec. 3.

    A real image's neighbourhood is the ball up to its k-th nearest real image. Density is the number of neighbourhoods
    around a generated image, divided by k. Coverage is the share of neighbourhoods with a generated image. Compare
    equal numbers of images, since many generated images always cover a few real ones (see `expected_coverage`). Both
    are 0 for a single real image, which has no neighbourhood.
    """
    inside = covered = 0
    for rows, reach in zip(_chunks(real, fake), _chunks(_reach(real, k), fake), strict=True):
        within = _distances(rows, fake) < reach[:, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    neighbours = max(1, min(k, len(real) - 1))
    return DensityCoverage(inside / (neighbours * len(fake)), covered / len(real))


def expected_coverage(real: int, fake: int, k: int = 5) -> float:
    """Compute the coverage of N `real` images by M images of the same distribution. Naeem et al. 2020, sec. 3.

    1 - prod_{i=1..k} (N - i) / (N + M - i): the probability that the k images nearest to a real one are not all real. k
    is at most N - 1, as in `density_coverage`.
    """
    return 1 - math.prod((real - i) / (real + fake - i) for i in range(1, min(k, real - 1) + 1))


@_comparison(NearestNeighbour(1.0, 1.0, 1.0))
def nearest_neighbour_accuracy(real: Tensor, fake: Tensor) -> NearestNeighbour:
    """Compute the leave-one-out accuracy of a 1-nearest-neighbour classifier, at worst 1.

    Lopez-Paz and Oquab 2017, arXiv:1610.06545. It is 0.5 for sets of the same distribution, near 1 for sets that
    differ, and below 0.5 if generated images are copies of real ones, given equal numbers of both. If several
    neighbours are equally near, an image counts by the share of its own set among them.
    """
    of_real, of_fake = _own_share(real, fake), _own_share(fake, real)
    return NearestNeighbour(float(torch.cat([of_real, of_fake]).mean()), float(of_real.mean()), float(of_fake.mean()))


@_comparison(math.inf)
def data_copying(train: Tensor, held_out: Tensor, fake: Tensor) -> float:
    """Compute whether generated images are nearer to the training images than unseen real ones are.

    Meehan et al. 2020, arXiv:2004.05675, C_T over one cell, the whole space: the z-score of Mann and Whitney's U, the
    number of pairs of a generated and a held-out image in which the generated one is further from its nearest training
    image (half for ties). Ties lower the variance as usual; no continuity correction is made.

    It is negative if generated images are nearer; below -3 they are copies, or all lie where training images are
    densest. It is about 0 for real images, positive for images worse than real ones, 0 if all are equally far, and
    infinity for numbers that are not finite, since such images copy nothing. Held-out images are real images that were
    not trained on, preferably 12 or more.
    """
    distances = torch.cat([_nearest(points, train)[:, 0] for points in (fake, held_out)])
    _, places, counts = torch.unique(distances, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        return 0.0
    counts = counts.double()
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[places]  # from 1; ties share their mean rank
    n, m, both = len(fake), len(held_out), len(distances)
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((counts.pow(3) - counts).sum()) / (both * (both - 1))
    return (u - n * m / 2) / math.sqrt(n * m / 12 * (both + 1 - ties))


@_comparison(0.0)
def copied_share(train: Tensor, fake: Tensor) -> float:
    """Compute the share of generated images that are nearly equal to a training image.

    Their distance from it is at most the 1 % quantile of the distances between training images and their nearest
    others. 0 for numbers that are not finite, since such images copy nothing.
    """
    return float((_nearest(fake, train)[:, 0] <= _too_near(train)).double().mean())


def support_size(real: Tensor, fake: Tensor) -> Support:
    """Estimate how many distinct images a generator makes, by the birthday paradox.

    Arora and Zhang 2017, arXiv:1706.08224, where people judge which images collide. Here two images collide that are
    equal, or nearer than the 1 % quantile of the distances between real images and their nearest others. Of n images
    drawn from S equally likely ones, n (n - 1) / 2S pairs collide on average. The size is infinite if no pair collides,
    and at worst 1, with all pairs colliding.
    """
    pairs = len(fake) * (len(fake) - 1) // 2
    collisions = _collisions(real, fake)
    if collisions < 0:
        return Support(1.0, pairs)
    return Support(pairs / collisions if collisions else math.inf, collisions)


@_comparison(-1)
def _collisions(real: Tensor, fake: Tensor) -> int:
    limit = _too_near(real)
    close = 0
    for rows in _chunks(fake, fake):
        distances = _distances(rows, fake)
        close += int(((distances < limit) | (distances == 0)).sum())
    return (close - len(fake)) // 2  # each pair was seen twice, and each image with itself


@_comparison(1.0)
def inception_score(probabilities: Tensor) -> float:
    """Compute the score of a classifier's answers about generated images, 1 to K, at worst 1.

    Salimans et al. 2016, arXiv:1606.03498, sec. 4: exp of the mean Kullback-Leibler divergence of p(y | x) from p(y),
    over all images at once. It is high if each image is clearly of one class and all classes are equally frequent. For
    information only: it uses no real image, one perfect image a class has the best score, and it depends more on the
    classifier's training data than on the images (Barratt and Sharma 2018, arXiv:1801.01973). The rows of
    `probabilities`, [N, K], add up to 1.
    """
    of_images, of_all = torch.special.entr(probabilities).sum(1), torch.special.entr(probabilities.mean(0)).sum()
    return math.exp(float(of_all - of_images.mean()))


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric positive matrix: [D, D] -> [D, D]."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _influence(points: Tensor, others: Tensor) -> Tensor:
    """Return each point's influence on the Fréchet distance of its set from others, over the number of points: [N].

    The derivative by the mean is 2 (m1 - m2), that by the covariance is I - T, where T is the linear map that
    transports the set's normal distribution to that of the others. Without full rank the inverse is a pseudo-inverse.
    """
    root, covariance = _root(_covariance(others)), _covariance(points)
    values, vectors = torch.linalg.eigh(root @ covariance @ root)
    kept = values > SINGULAR * values.max()
    scaled = root @ vectors[:, kept] / values[kept].pow(0.25)
    centred = points - points.mean(0)
    along = 2 * centred @ (points.mean(0) - others.mean(0))
    spread = centred.square().sum(1) - (centred @ scaled).square().sum(1)
    influence = along + spread
    return (influence - influence.mean()) / len(points)


def _covariance(features: Tensor) -> Tensor:
    """Return the covariance over N - 1, 0 for an N of 1: [N, D] -> [D, D], also for a D of 1."""
    size = features.shape[1]
    return features.T.cov(correction=min(1, len(features) - 1)).reshape(size, size)


def _discrepancy(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy."""
    return _mean_kernel(real) + _mean_kernel(fake) - 2 * float(_kernel(real, fake).mean())


def _mean_kernel(features: Tensor) -> float:
    """Return the mean kernel of two different images; for a single image, that of the image and itself."""
    kernel, count = _kernel(features, features), len(features)
    return float(kernel) if count == 1 else float(kernel.sum() - kernel.trace()) / (count * (count - 1))


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1).pow(3)


def _chunks(points: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """Split points so that the distances of each part from all the others fit into memory."""
    return torch.split(points, max(1, MAX_PAIRWISE // len(others)))


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """Return all distances, exactly 0 between equal points: [..., N, D] and [..., M, D] -> [..., N, M]."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest(points: Tensor, others: Tensor | None = None, k: int = 1) -> Tensor:
    """Return the distances from the k nearest others, [N, k] in no order; without `others`, within the set.

    Within a set a point is not its own neighbour, but a point equal to it is.
    """
    candidates = points if others is None else others
    kept = []
    start = 0
    for rows in _chunks(points, candidates):
        # A matrix product is ten times as fast as `_distances` but off by 1e-7 or so near 0: it only selects.
        roughly = torch.cdist(rows, candidates, compute_mode="use_mm_for_euclid_dist")
        if others is None:
            roughly.diagonal(start).fill_(math.inf)
        chosen = roughly.topk(k, largest=False, sorted=False).indices
        kept.append(_distances(rows[:, None], candidates[chosen])[:, 0])
        start += len(rows)
    return torch.cat(kept)


def _reach(features: Tensor, k: int) -> Tensor:
    """Return each point's distance from the k-th nearest other of its set, [N]; 0 in a set of one."""
    k = min(k, len(features) - 1)
    return _nearest(features, k=k).amax(1) if k else features.new_zeros(1)


def _too_near(real: Tensor) -> float:
    """Return the 1 % quantile of the distances between real images and their nearest others; 0 in a set of one."""
    return float(_reach(real, 1).quantile(0.01))


def _own_share(points: Tensor, others: Tensor) -> Tensor:
    """Return the share of its own set among each point's nearest neighbours, [N]: 0 or 1 without ties."""
    if len(points) == 1:
        return points.new_zeros(1)
    own, foreign = _nearest(points)[:, 0], _nearest(points, others)[:, 0]
    share = (own < foreign).double()
    tied = (own == foreign).nonzero()[:, 0]
    for rows in _chunks(tied, torch.cat([points, others])):
        limit = own[rows, None]
        ours = (_distances(points[rows], points) == limit).sum(1) - (own[rows] == 0).long()  # not itself
        theirs = (_distances(points[rows], others) == limit).sum(1)
        share[rows] = ours / (ours + theirs).double()
    return share
