"""Comparisons of two sets of feature vectors: pure functions, on the CPU, in float64.

Rows are images and columns are features; a set has one image or more. Only numbers measured with the same features, as
many real and as many fake images can be compared. A set with a number that is not finite gets the value, named by each
docstring, of images that are infinitely far from all others and look alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gantool.devices import one_thread

MAX_PAIRWISE = 2_000_000  # distances held at a time: 16 MB
SINGULAR = 1e-10  # of the largest eigenvalue, below which one counts as 0
MAX_EXACT_KERNEL = 2000  # images up to which the kernel distance compares all with all
SUBSETS, SUBSET = 20, 1000  # what it averages over beyond that


class PrecisionRecall(NamedTuple):
    """Share of fake images within the real ones' reach, and of real images within the fake ones'; 0 to 1."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Real neighbourhoods that a fake image lies in, 1 where the sets are alike; share of those with a fake image."""

    density: float
    coverage: float


class NearestNeighbour(NamedTuple):
    """How often an image's nearest neighbour is of its own set, 0 to 1: over all images, the real and the fake ones."""

    accuracy: float
    real: float
    fake: float


class Support(NamedTuple):
    """Images that a generator makes, as an estimate, and the pairs of near-identical ones that it rests on."""

    size: float
    collisions: int


class FrechetTerms(NamedTuple):
    """A Fréchet distance, and how much each image contributed to it.

    Args:
        distance: the value.
        real: of each real image, its influence on the distance divided by the number of real images, [N].
        fake: the same of each generated image, [M].
    """

    distance: float
    real: Tensor
    fake: Tensor


@one_thread()
def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of the normal distributions fitted to two sets. Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), with the last trace taken as the sum of the square roots of the
    eigenvalues of R S2 R, R = S1^(1/2): that matrix is symmetric and positive, so nothing complex appears and fewer
    samples than features do no harm. A set with a number that is not finite is infinitely far.

    Shape:
        real: [N, D]. fake: [M, D]. A set of one image has no covariance.
    """
    real, fake = _double(real), _double(fake)
    if not _finite(real, fake):
        return math.inf
    real_covariance, fake_covariance = _covariance(real), _covariance(fake)
    root = _root(real_covariance)
    cross = torch.linalg.eigvalsh(root @ fake_covariance @ root).clamp_min(0).sqrt().sum()
    means = (real.mean(0) - fake.mean(0)).square().sum()
    distance = means + real_covariance.trace() + fake_covariance.trace() - 2 * cross
    return max(0.0, float(distance))


@one_thread()
def frechet_terms(real: Tensor, fake: Tensor) -> FrechetTerms:
    """Return the Fréchet distance with what each image adds to its sampling error.

    The distance is a smooth function of two means and two covariances. Its influence function (Hampel 1974, JASA 69)
    says how it changes when one image becomes a little more frequent. Over independent images, the sum of the squared
    terms is the variance of the distance, to first order. Near the distance of a set and itself that order vanishes,
    so the deviation of the floor has to be added.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    distance = frechet_distance(real, fake)
    if not math.isfinite(distance):
        return FrechetTerms(distance, torch.zeros(len(real)).double(), torch.zeros(len(fake)).double())
    real, fake = _double(real), _double(fake)
    return FrechetTerms(distance, _influence(real, fake), _influence(fake, real))


@one_thread()
def kernel_distance(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """Squared maximum mean discrepancy of two sets. Binkowski et al. 2018, arXiv:1801.01401, sec. 4 (there KID).

    With the kernel (x.y / D + 1)^3. The estimate has no bias: for two samples of one distribution it is 0 on average
    and so negative about as often as positive, and for a set and itself below 0. Infinity where a number is not finite.

    Args:
        real: real images.
        fake: generated images.
        seed: of the subsets that are compared where a set has more than 2000 images.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    real, fake = _double(real), _double(fake)
    if not _finite(real, fake):
        return math.inf
    if max(len(real), len(fake)) <= MAX_EXACT_KERNEL:
        return _discrepancy(real, fake)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(SUBSETS):
        some, others = (torch.randperm(len(features), generator=generator)[:SUBSET] for features in (real, fake))
        parts.append(_discrepancy(real[some], fake[others]))
    return math.fsum(parts) / SUBSETS


@one_thread()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall. Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2.

    An image is within a set's reach where it is nearer to some image of that set than the k-th nearest of the others
    is. Both are 0 where a number is not finite.

    Args:
        real: real images.
        fake: generated images.
        k: neighbours, at most all the others of a set. A set of one image reaches nothing.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    real, fake = _double(real), _double(fake)
    if not _finite(real, fake):
        return PrecisionRecall(0.0, 0.0)
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    reached = torch.zeros(len(fake), dtype=torch.bool)
    reaching = 0
    for rows, reach in zip(_chunks(real, fake), _chunks(real_reach, fake), strict=True):
        distances = _distances(rows, fake)
        reached |= (distances < reach[:, None]).any(0)
        reaching += int((distances < fake_reach).any(1).sum())
    return PrecisionRecall(float(reached.double().mean()), reaching / len(real))


@one_thread()
def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage. Naeem et al. 2020, arXiv:2002.09797, sec. 3.

    A real image's neighbourhood is the ball that its k-th nearest real image is just outside of. Density counts the
    neighbourhoods that a fake image lies in, over k; coverage is the share of neighbourhoods with a fake image. Compare
    equal numbers of images: against many fake images a few real ones are always covered (see `expected_coverage`).
    Both are 0 where a number is not finite.

    Args:
        real: real images.
        fake: generated images.
        k: neighbours, at most all the other real images. One real image has no neighbourhood: both are 0.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    real, fake = _double(real), _double(fake)
    if not _finite(real, fake):
        return DensityCoverage(0.0, 0.0)
    inside = covered = 0
    for rows, reach in zip(_chunks(real, fake), _chunks(_reach(real, k), fake), strict=True):
        within = _distances(rows, fake) < reach[:, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    neighbours = max(1, min(k, len(real) - 1))
    return DensityCoverage(inside / (neighbours * len(fake)), covered / len(real))


def expected_coverage(real: int, fake: int, k: int = 5) -> float:
    """Coverage of `real` images by as good as real ones. Naeem et al. 2020, arXiv:2002.09797, sec. 3.

    1 - prod_{i=1..k} (N - i) / (N + M - i): the k images nearest to a real one, of all others, are not all real.

    Args:
        real: number of real images, N.
        fake: number of generated images, M.
        k: neighbours, at most N - 1 as in `density_coverage`.
    """
    return 1 - math.prod((real - i) / (real + fake - i) for i in range(1, min(k, real - 1) + 1))


@one_thread()
def nearest_neighbour_accuracy(real: Tensor, fake: Tensor) -> NearestNeighbour:
    """Leave-one-out accuracy of a 1-nearest-neighbour classifier. Lopez-Paz and Oquab 2017, arXiv:1610.06545.

    0.5 where the sets cannot be told apart, near 1 where they can, and below 0.5 where fake images are copies of real
    ones; that reading needs as many fake as real images. Of several neighbours that are equally near, the share of its
    own set counts for an image. All are 1 where a number is not finite.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    real, fake = _double(real), _double(fake)
    if not _finite(real, fake):
        return NearestNeighbour(1.0, 1.0, 1.0)
    of_real, of_fake = _own_share(real, fake), _own_share(fake, real)
    return NearestNeighbour(float(torch.cat([of_real, of_fake]).mean()), float(of_real.mean()), float(of_fake.mean()))


@one_thread()
def data_copying(train: Tensor, held_out: Tensor, fake: Tensor) -> float:
    """C_T over one cell, the whole space: do fake images lie nearer to the training images than unseen real ones do?

    Meehan et al. 2020, arXiv:2004.05675: the z-score of Mann and Whitney's U, the number of pairs of a fake and a
    held-out image in which the fake one is further from its nearest training image (half where both are as far). Ties
    lower the variance as usual; there is no continuity correction.

    Negative where fake images are nearer, below -3 hardly by chance: copies, or all of them where training images lie
    densest. About 0 for real images, and positive for images worse than real ones, as those of any young generator. 0
    too where all are equally far. Infinity where a number is not finite: such images copy nothing.

    Shape:
        train: [N, D]. held_out: [L, D], real images that were not trained on, 12 or more to mean much. fake: [M, D].
    """
    train, held_out, fake = _double(train), _double(held_out), _double(fake)
    if not _finite(train, held_out, fake):
        return math.inf
    distances = torch.cat([_nearest(points, train)[:, 0] for points in (fake, held_out)])
    _, places, counts = torch.unique(distances, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        return 0.0
    counts = counts.double()
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[places]  # from 1; the mean rank of those equally far
    n, m, both = len(fake), len(held_out), len(distances)
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((counts.pow(3) - counts).sum()) / (both * (both - 1))
    return (u - n * m / 2) / math.sqrt(n * m / 12 * (both + 1 - ties))


@one_thread()
def copied_share(train: Tensor, fake: Tensor) -> float:
    """Share of fake images that are all but a training image.

    They are no further from one than the distance that 1 % of the training images have, or less, from their nearest
    other. 0 where a number is not finite: such images copy nothing.

    Shape:
        train: [N, D]. fake: [M, D].
    """
    train, fake = _double(train), _double(fake)
    if not _finite(train, fake):
        return 0.0
    return float((_nearest(fake, train)[:, 0] <= _too_near(train)).double().mean())


@one_thread()
def support_size(real: Tensor, fake: Tensor) -> Support:
    """Number of distinct images that a generator makes, from collisions among those given: the birthday paradox.

    Arora and Zhang 2017, arXiv:1706.08224, where people judge what collides. Here two images do that are equal, or
    nearer than the distance that 1 % of the real images have, or less, from their nearest other. Of n images drawn from
    S equally likely ones n (n - 1) / 2S pairs collide on average. Infinity where none does: more images are needed to
    tell. One image, of which all pairs collide, where a number is not finite.

    Shape:
        real: [N, D]. fake: [M, D].
    """
    real, fake = _double(real), _double(fake)
    pairs = len(fake) * (len(fake) - 1) // 2
    if not _finite(real, fake):
        return Support(1.0, pairs)
    limit = _too_near(real)
    close = 0
    for rows in _chunks(fake, fake):
        distances = _distances(rows, fake)
        close += int(((distances < limit) | (distances == 0)).sum())
    collisions = (close - len(fake)) // 2  # each pair was seen twice, and each image with itself
    return Support(pairs / collisions if collisions else math.inf, collisions)


@one_thread()
def inception_score(probabilities: Tensor) -> float:
    """Score of a classifier's answers about generated images, 1 to K. Salimans et al. 2016, arXiv:1606.03498, sec. 4.

    exp of the mean Kullback-Leibler divergence of p(y | x) from p(y), over all images at once: high where each image is
    clearly of one class and all classes are as frequent. For information only: it never looks at a real image, one
    perfect image a class has the best score, and it follows what the classifier was trained on more than what images
    look like (Barratt and Sharma 2018, arXiv:1801.01973). 1 where a number is not finite.

    Shape:
        probabilities: [N, K], rows that add up to 1.
    """
    probabilities = _double(probabilities)
    if not _finite(probabilities):
        return 1.0
    of_images, of_all = torch.special.entr(probabilities).sum(1), torch.special.entr(probabilities.mean(0)).sum()
    return math.exp(float(of_all - of_images.mean()))


def _double(features: Tensor) -> Tensor:
    return features.detach().cpu().double()


def _finite(*sets: Tensor) -> bool:
    return all(bool(features.isfinite().all()) for features in sets)


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric positive matrix: [D, D] -> [D, D]."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _influence(points: Tensor, others: Tensor) -> Tensor:
    """Return how each point of a set moves its Fréchet distance from others, over the number of points: [N].

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
    """Return the unbiased estimate of the squared maximum mean discrepancy: [N, D] and [M, D] -> number."""
    between = float(_kernel(real, fake).mean())
    return _mean_kernel(real) + _mean_kernel(fake) - 2 * between


def _mean_kernel(features: Tensor) -> float:
    """Return the mean kernel of two different images; of the image and itself where there is but one."""
    kernel, count = _kernel(features, features), len(features)
    if count == 1:
        return float(kernel)
    return float(kernel.sum() - kernel.trace()) / (count * (count - 1))


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1).pow(3)


def _chunks(points: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """Split points so that the distances of each part from all the others fit into memory."""
    return torch.split(points, max(1, MAX_PAIRWISE // len(others)))


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """Return all distances, exactly 0 between equal points: [..., N, D] and [..., M, D] -> [..., N, M]."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest(points: Tensor, others: Tensor | None = None, k: int = 1) -> Tensor:
    """Return the distances from the k nearest of the others, [N, k] in no order; without `others`, within the set.

    Within a set no point counts as its own neighbour, but one equal to it does.
    """
    candidates = points if others is None else others
    kept = []
    start = 0
    for rows in _chunks(points, candidates):
        # By a matrix product, ten times as fast as `_distances` but off by 1e-7 or so near 0: to choose, not to keep.
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
    """Return the distance that 1 % of real images have, or less, from their nearest other; 0 in a set of one."""
    return float(_reach(real, 1).quantile(0.01))


def _own_share(points: Tensor, others: Tensor) -> Tensor:
    """Return the share of its own set among each point's nearest neighbours, [N]: 0 or 1 where one is the nearest."""
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
