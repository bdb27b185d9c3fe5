"""Diagnoses of a run: rules over what was measured, and what each means in words. Nothing here measures anything."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from gantool.errors import MAX_LISTED, RunError, unknown

FLAT_CONTRAST = 0.05  # contrast, below which next to nothing varies
SATURATED, REAL_SATURATED = 0.5, 0.1  # shares of pixels: more of the generated, fewer of the real ones
LARGE_LOSS, LARGE_DRIFT = 100, 1e6  # from 0; the second where a loss has no zero of its own
WHOLLY, REAL_WHOLLY = 0.95, 0.8  # the same shares where real images have many black and white pixels themselves
OVERPOWERED_ACCURACY = 0.98  # accuracy of D
OVERPOWERED_FAKE_SCORE = 0.01  # D(G(z))
WARM_UP_STEPS = 100  # steps in which a sure D and flat images mean nothing: the generator has hardly begun
VANISHED_GRADIENT = 1e-3  # of the first gradient
OVERFIT_RATIO = 0.5  # r_v, see `Observation.overfitting`
MIN_SCORE_GAP = 0.5  # scores between training and generated images, below which r_v divides by noise
GUESSING_ACCURACY = 0.52  # accuracy of D
FLOOR_FD = 1  # fd of real images against other real ones
FAR_FD = 5  # fd
FEW_DISTINCT_IMAGES = 50  # distinct ones
FORMED_FD_SHARE = 0.2  # of the first fd, below which images have become something, and are no longer all alike for that
STALLED_MEASUREMENTS = (
    5  # measurements in a row that fd has to stand still: before, images are alike because none is good yet
)
MIN_COLLISIONS = 10  # pairs, below which the number of distinct images is a guess
COPYING_C_T = -3  # C_T, in standard deviations
COPYING_ACCURACY = 0.4  # 1-NN accuracy on the generated side; copies are below the half of equal laws
COPIED_SHARE = 0.1  # share of generated images
MIN_HELD_OUT = 12  # images, below which C_T says nothing
UNCHANGED_DIFFERENCE = 0.04  # mean absolute difference of a translated image from its source, of 0 to 2
NOISE_DEVIATIONS = 2  # deviations of the floor, within which two measurements of fd are the same
USUAL_LR = 2e-4  # learning rate of Radford et al. 2016, arXiv:1511.06434, sec. 4
WILD_LR = 0.01  # learning rate, of which a quarter is no advice
LR_FACTOR = 0.25  # of a learning rate, which the advice is to take
EXPLAIN_COLUMNS = 80  # characters in a line of `explain`

Verdict = bool | None
"""Whether a condition is true; None where what it needs was not measured."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What was measured of a run at one time; None is what this run cannot give. What is not finite becomes None.

    Args:
        epoch: the epoch that has just ended, from 1.
        step: training steps so far.
        measured: whether the epoch ended with a measurement. Without one there are only the losses, what D and the
            gradients tell, and what the few images of the epoch's grid tell.
        train_images: images that are learned from.
        held_out_images: images that are not.
        losses: by the log's names.
        drifting: whether they have no zero of their own, such as `wasserstein`'s, and may be large in a healthy run.
        rates: learning rates by player, for the advice.
        accuracy: share of real and fake images that D tells right, 0 to 1.
        fake_answer: mean D(G(z)) as a probability, 0 to 1.
        gradient: norm of the generator's gradient.
        first_gradient: the largest of it in the first 50 steps; their median may have vanished already.
        real_train_score: mean score (logit) that D gives to training images.
        real_held_out_score: the same of held-out images.
        fake_score: the same of generated images.
        contrast: deviation of generated pixels over that of real ones.
        saturated: share of generated pixels with |x| > 0.99, 0 to 1.
        real_saturated: the same of real images.
        fd: Fréchet distance of generated from real images, in floors: 1 is that of real from other real images.
        floor_deviation: standard deviation of the latter.
        support: distinct images that the generator seems to make, n(n-1)/2 over `collisions`.
        collisions: pairs of generated images that are as good as the same.
        lost_classes: names of the classes that come up less than a tenth as often as they should.
        copying: C_T in standard deviations (Meehan et al. 2020, arXiv:2004.05675); negative where images are copies.
        nearest_fake: share of generated images whose nearest neighbour is generated too, 0 to 1.
        copied: share of generated images nearer to a training image than the nearest 1 % of training images are to
            each other, 0 to 1.
        change: mean absolute difference of translated images from their sources, 0 to 2.
        real_change: the same of what they should become, where that is known.
    """

    epoch: int
    step: int
    train_images: int
    held_out_images: int = 0
    measured: bool = True
    losses: Mapping[str, float] = field(default_factory=dict)
    drifting: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    fake_answer: float | None = None
    gradient: float | None = None
    first_gradient: float | None = None
    real_train_score: float | None = None
    real_held_out_score: float | None = None
    fake_score: float | None = None
    contrast: float | None = None
    saturated: float | None = None
    real_saturated: float | None = None
    fd: float | None = None
    floor_deviation: float | None = None
    support: float | None = None
    collisions: float | None = None
    lost_classes: tuple[str, ...] | None = None
    copying: float | None = None
    nearest_fake: float | None = None
    copied: float | None = None
    change: float | None = None
    real_change: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not math.isfinite(value):
                object.__setattr__(self, each.name, None)

    @property
    def largest_loss(self) -> tuple[str, float] | None:
        """Name and value of the finite loss that is farthest from zero."""
        finite = [(name, value) for name, value in self.losses.items() if math.isfinite(value)]
        return max(finite, key=lambda loss: abs(loss[1]), default=None)

    @property
    def gradient_left(self) -> float | None:
        """What is left of the generator's first gradient."""
        return _ratio(self.gradient, self.first_gradient)

    @property
    def lead(self) -> float | None:
        """How much higher D scores training images than generated ones."""
        return _difference(self.real_train_score, self.fake_score)

    @property
    def overfitting(self) -> float | None:
        """r_v of Karras et al. 2020, arXiv:2006.06676, eq. 1: 0 where held-out images are scored as training images.

        1 where they are scored as generated ones.
        """
        return _ratio(_difference(self.real_train_score, self.real_held_out_score), self.lead)


@dataclass(frozen=True)
class Diagnosis:
    """A state of the run that has begun or ended.

    Args:
        code: one of `CODES`.
        began: whether it began; else it ended.
        epoch: of the observation that decided it.
        message: one line for a person.
    """

    code: str
    began: bool
    epoch: int
    message: str


def explain(code: str) -> str:
    """Return the meaning of a diagnosis: what was seen, why it happens, what to try, and when it is harmless.

    Raises:
        RunError: there is no such diagnosis.
    """
    if code not in _MEANINGS:
        raise RunError(unknown("diagnosis", code, CODES))
    told = "".join(f"\n\n{_TOLD.format(rule.row)}" for rule in _RULES if rule.code == code)  # none for nonfinite
    paragraphs = f"{code}: {_MEANINGS[code].strip()}{told}".split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(each.split()), EXPLAIN_COLUMNS, break_on_hyphens=False, break_long_words=False)
        for each in paragraphs
    )


@dataclass(frozen=True)
class _Rule:
    """When a state begins, and what is said then.

    Args:
        code: names it.
        length: epochs or measurements in a row at which its condition is true.
        holds: its condition.
        seen: the numbers that show it.
        advice: what to do.
        every_epoch: whether it looks at every epoch; else only at those that are measured.
        stalls: measurements in which the best fd must not have fallen for the state to begin.
        plain: what is no sign of youth once fd has fallen far: then it need not stand still.
        until_better: whether the state ends, too, when it falls.
    """

    code: str
    length: int
    holds: Callable[[Observation], Verdict]
    seen: Callable[[Observation], str]
    advice: Callable[[Observation], str]
    every_epoch: bool = False
    stalls: int = 0
    plain: Callable[[Observation], Verdict] = lambda _: False
    until_better: bool = False

    @property
    def row(self) -> str:
        """How long its condition has to be true."""
        return f"at {self.length} {'epochs' if self.every_epoch else 'measurements'} in a row"

    def message(self, observation: Observation) -> str:
        """Return the line that says that it begins."""
        seen, advice = self.seen(observation), self.advice(observation)
        return f"{self.code}: {seen} {self.row}; {advice}; gantool explain {self.code}"


def _flat(now: Observation) -> Verdict:
    return _all(now.step > WARM_UP_STEPS, _less(now.contrast, FLAT_CONTRAST))


def _saturated(now: Observation) -> Verdict:
    mostly = _all(_less(SATURATED, now.saturated), _less(now.real_saturated, REAL_SATURATED))
    return _any(mostly, _all(_less(WHOLLY, now.saturated), _less(now.real_saturated, REAL_WHOLLY)))


def _large(now: Observation) -> Verdict:
    limit = LARGE_DRIFT if now.drifting else LARGE_LOSS
    return None if now.largest_loss is None else abs(now.largest_loss[1]) > limit


def _diverged(now: Observation) -> Verdict:
    return _any(_flat(now), _saturated(now), _large(now))


def _divergence(now: Observation) -> str:
    parts = []
    if _flat(now):
        parts.append(f"generated pixels vary {now.contrast:.2f} times as much as real ones")
    if _saturated(now):
        parts.append(
            f"{now.saturated:.0%} of generated pixels and {now.real_saturated:.0%} of real ones are at a limit"
        )
    if _large(now) and now.largest_loss:
        parts.append(f"{now.largest_loss[0]} {_number(now.largest_loss[1])}")
    return ", ".join(parts)


def _overpowers(now: Observation) -> Verdict:
    return _all(
        now.step > WARM_UP_STEPS,
        _less(OVERPOWERED_ACCURACY, now.accuracy),
        _less(now.fake_answer, OVERPOWERED_FAKE_SCORE),
    )


def _vanished(now: Observation) -> Verdict:
    return _all(_overpowers(now), _less(now.gradient_left, VANISHED_GRADIENT))


def _overfit(now: Observation) -> Verdict:
    return _all(_less(MIN_SCORE_GAP, now.lead), _less(OVERFIT_RATIO, now.overfitting))


def _overfitting(now: Observation) -> str:
    scores = (
        f"{now.real_train_score:.2f}, held-out ones {now.real_held_out_score:.2f}, generated ones {now.fake_score:.2f}"
    )
    return f"D scores training images {scores} (r_v {now.overfitting:.2f})"


def _too_weak(now: Observation) -> Verdict:
    return _all(_less(now.accuracy, GUESSING_ACCURACY), _less(FAR_FD, now.fd))


def _few(now: Observation) -> Verdict:
    many = _not(_less(now.collisions, MIN_COLLISIONS))
    return _all(many, _less(now.support, min(FEW_DISTINCT_IMAGES, now.train_images / 2)))


def _collapsed(now: Observation) -> Verdict:
    return _any(_few(now), None if now.lost_classes is None else bool(now.lost_classes))


def _collapse(now: Observation) -> str:
    parts = []
    if _few(now):
        parts.append(f"about {now.support:.0f} distinct images ({_number(now.collisions)} pairs alike)")
    if now.lost_classes:
        more = len(now.lost_classes) - MAX_LISTED
        names = ", ".join(now.lost_classes[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"hardly any image of {names}")
    return " and ".join(parts)


def copies(metrics: Mapping[str, float], held_out: int) -> bool:
    """Return whether a measurement says that the images are copies of training images, by the rule of `memorised`.

    Args:
        metrics: see `metrics.evaluate.Evaluator`.
        held_out: images that training never sees, without which copies cannot be told.
    """
    near = metrics.get("nearest_neighbour_fake", 1.0) < COPYING_ACCURACY or metrics.get("copied", 0.0) > COPIED_SHARE
    return held_out >= MIN_HELD_OUT and metrics.get("copying", 0.0) < COPYING_C_T and near


def _memorised(now: Observation) -> Verdict:
    near = _any(_less(now.nearest_fake, COPYING_ACCURACY), _less(COPIED_SHARE, now.copied))
    return _all(now.held_out_images >= MIN_HELD_OUT, _less(now.copying, COPYING_C_T), near)


def _memory(now: Observation) -> str:
    parts = [f"C_T {now.copying:.1f}"]
    if now.nearest_fake is not None:
        parts.append(f"1-NN accuracy of generated images {now.nearest_fake:.2f}")
    if now.copied is not None:
        parts.append(f"{now.copied:.0%} as good as copies")
    return ", ".join(parts)


def _unchanged(now: Observation) -> Verdict:
    alike = now.real_change is not None and now.real_change < 2 * UNCHANGED_DIFFERENCE
    return False if alike else _all(now.step > WARM_UP_STEPS, _less(now.change, UNCHANGED_DIFFERENCE))


def _above_floor(now: Observation) -> Verdict:
    above, deviation = _difference(now.fd, FLOOR_FD), now.floor_deviation
    return _less(None if deviation is None else NOISE_DEVIATIONS * deviation, above)


def _slower(now: Observation, *players: str) -> str:
    """Name the changes that slow players down, with values where the run's own rates are known."""
    rates = {f"train.{player}.lr": now.rates.get(player) for player in players}
    return " ".join(
        f"--set {key}={_number(USUAL_LR if rate > WILD_LR else LR_FACTOR * rate)}" if rate else key
        for key, rate in rates.items()
    )


_RULES = (
    _Rule(
        "diverged",
        2,
        _diverged,
        _divergence,
        lambda now: f"lower both rates ({_slower(now, 'generator', 'discriminator')})",
        every_epoch=True,
    ),
    _Rule(
        "d-overpowers",
        5,
        _overpowers,
        lambda now: f"D accuracy {now.accuracy:.2f}, D(G(z)) {now.fake_answer:.3f}",
        lambda now: f"lower the discriminator's rate ({_slower(now, 'discriminator')}) or give it dropout",
        every_epoch=True,
    ),
    _Rule(
        "g-grad-vanished",
        5,
        _vanished,
        lambda now: (
            f"the generator's gradient is {_number(now.gradient_left)} of its first, D(G(z)) {now.fake_answer:.3f}"
        ),
        lambda now: (
            "with loss minimax take --set loss.name=non_saturating, with another lower the discriminator's rate "
            f"({_slower(now, 'discriminator')})"
        ),
        every_epoch=True,
    ),
    _Rule(
        "d-overfit",
        3,
        _overfit,
        _overfitting,
        lambda now: "get more images, give the discriminator dropout, or stop early and take the best checkpoint",
    ),
    _Rule(
        "d-too-weak",
        10,
        _too_weak,
        lambda now: f"D accuracy {now.accuracy:.2f}, fd {_number(now.fd)} (1 is real) and not falling",
        lambda now: f"lower the generator's rate ({_slower(now, 'generator')}) or take dropout from the discriminator",
        stalls=10,
        until_better=True,
    ),
    _Rule(
        "mode-collapse",
        2,
        _collapsed,
        _collapse,
        lambda now: f"lower the generator's rate ({_slower(now, 'generator')}), or raise model.latent_dim or loss.r1",
        stalls=STALLED_MEASUREMENTS,
        plain=_few,
    ),
    _Rule(
        "memorised",
        2,
        _memorised,
        _memory,
        lambda now: "get more images, or train for fewer epochs; fd is no guide here, it rewards copies",
    ),
    _Rule(
        "unchanged",
        2,
        _unchanged,
        lambda now: f"translated images differ by {now.change:.3f} of 2 from their sources",
        lambda now: (
            "lower what holds images to their sources (--set model.cycle=5 --set model.identity=0), or train on"
        ),
    ),
    _Rule(
        "no-progress",
        20,
        _above_floor,
        lambda now: f"fd {_number(now.fd)}, and the best not lower by more than {_number(now.floor_deviation)}",
        lambda now: "stop here and take the best checkpoint, or search better settings with gantool tune",
        stalls=20,
        until_better=True,
    ),
)


def _less(low: float | None, high: float | None) -> Verdict:
    return None if low is None or high is None else low < high


def _not(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict


def _all(*verdicts: Verdict) -> Verdict:
    """Return whether all are true; one that is false decides it, whatever else was measured."""
    return False if False in verdicts else None if None in verdicts else True


def _any(*verdicts: Verdict) -> Verdict:
    """Return whether one of those that were measured is true."""
    return True if True in verdicts else False if False in verdicts else None


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _ratio(part: float | None, whole: float | None) -> float | None:
    """Divide by a positive number; None by any other."""
    return None if part is None or whole is None or whole <= 0 else part / whole


def _number(value: float | None) -> str:
    """Write a number with three digits.

    >>> _number(9975.2), _number(13.69), _number(0.00005)
    ('9,975', '13.7', '5e-5')
    """
    assert value is not None  # a rule that holds has measured it
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}".replace("e-0", "e-")


_TOLD = "Told when it was so {}, and over when it was not at 2 in a row."
_MEANINGS = {
    "nonfinite": """a number of the training is no number any more

    Seen: a loss or another number of the training became infinite or not a number. Once is enough: the training has
    ended and gone back to its last good checkpoint, and the best one is kept.

    Why: steps were so large that something overflowed. Adam moves a weight by up to about the learning rate in a step,
    however small the gradient is (Kingma and Ba 2015, arXiv:1412.6980, sec. 2.1), so the rate comes first. A critic
    whose slope nothing limits comes second (Gulrajani et al. 2017, arXiv:1704.00028).

    Try: a new run with a quarter of train.optimizer.lr. train.optimizer.betas.0: 0.5 in place of 0.9. With loss:
    wasserstein, loss.gradient_penalty: 10.

    Harmless: never. What the best checkpoint makes is as good as it was.
    """,
    "diverged": f"""the images have gone to a limit, or a loss has

    Seen: generated pixels varied less than {FLAT_CONTRAST} times as much as real ones, after the first {WARM_UP_STEPS}
    steps; or more than {SATURATED:.0%} of them were as dark or as bright as can be (|x| > 0.99), which fewer than
    {REAL_SATURATED:.0%} of the real ones were (or {WHOLLY:.0%} and {REAL_WHOLLY:.0%}); or a loss was farther from 0
    than {LARGE_LOSS}, or than {LARGE_DRIFT:.0e} where it has no zero of its own, as that of wasserstein and hinge.
    Measured on 14x14 digits with a learning rate of 0.3: a DCGAN whose pixels varied 0.00 times as much, fd 960 (of a
    healthy run: 13.7), and gan14 with a loss of 5,450 and fd 59. Where an epoch is not measured, its grid of 16
    images tells of the pixels. A run that ends diverged exits with 4.

    Why: steps are so large that weights grow without bound. They drive the tanh that ends the generator to its limits,
    where it lets hardly any gradient through (1 - tanh^2 is 0.02 at 0.99), so that a run seldom comes back.
    d-overpowers, g-grad-vanished and mode-collapse often follow from it: mend this first.

    Try: a new run with a quarter of train.generator.lr and train.discriminator.lr, or of train.optimizer.lr, which is
    for both; where they are above {WILD_LR}, with the usual {USUAL_LR}. train.optimizer.betas.0: 0.5 in place of 0.9,
    with which training oscillated for Radford et al. 2016 (arXiv:1511.06434, sec. 4). With loss: wasserstein,
    loss.gradient_penalty: 10.

    Harmless: never where images are at a limit. Images that are good but all the same have a mode-collapse only.
    """,
    "d-overpowers": f"""the discriminator knows every generated image

    Seen: the discriminator was right about more than {OVERPOWERED_ACCURACY:.0%} of the images (accuracy above
    {OVERPOWERED_ACCURACY}), and its mean answer to generated ones, D(G(z)), was below {OVERPOWERED_FAKE_SCORE}. The
    first {WARM_UP_STEPS} steps do not count. Measured on 14x14 digits with a discriminator that learns 250 times as
    fast as the generator: accuracy 1.00, D(G(z)) 0.000, fd 336 (of a healthy run: 13.7).

    Why: the answer of a discriminator that is sure hardly changes when an image changes a little, and so tells the
    generator little (Goodfellow et al. 2014, arXiv:1406.2661, sec. 3; Arjovsky and Bottou 2017, arXiv:1701.04862, sec.
    2). It learns too fast, is too large, or has too few images.

    Try: a quarter of train.discriminator.lr. model.dropout: 0.3, where the model has it. train.optimizer.betas.0: 0.5
    in place of 0.9; with dropout, that made gan28 learn the 1,797 digits. loss.r1 or loss.gradient_penalty, which keep
    the discriminator smooth (Mescheder et al. 2018, arXiv:1801.04406). More images.

    Harmless: in the first {WARM_UP_STEPS} steps an accuracy of 1.00 is normal. Later it may pass as long as fd falls. A
    loss whose answers are no probabilities never has this diagnosis.
    """,
    "g-grad-vanished": f"""the generator is told nothing any more

    Seen: the discriminator overpowers (gantool explain d-overpowers), and the norm of the generator's gradient was
    below {VANISHED_GRADIENT} of its largest in the first 50 steps. Measured on 14x14 digits with the same
    discriminator, which learned too fast: 0.0005 with loss: minimax, 1.1 with loss: non_saturating.

    Why: the minimax loss, log(1 - D(G(z))), is flat where D(G(z)) is near 0, which is where a bad generator is
    (Goodfellow et al. 2014, arXiv:1406.2661, sec. 3; Arjovsky and Bottou 2017, arXiv:1701.04862, sec. 2.2). Else it was
    seen only in a run that had diverged.

    Try: loss: non_saturating, whose gradient is largest there. Then what helps against d-overpowers: a quarter of
    train.discriminator.lr, model.dropout, loss.r1.

    Harmless: never while it lasts, since the generator stands still.
    """,
    "d-overfit": f"""the discriminator knows the training images by heart

    Seen: r_v, of raw scores, was above {OVERFIT_RATIO}. It is how much lower held-out images score than training
    ones, over how much lower generated ones do: 0 where held-out images pass for training ones, 1 where they pass for
    generated ones. Counted where training and generated images are more than {MIN_SCORE_GAP} apart. Measured on 14x14
    digits: 0.15 in a healthy run, 1.27 with 20 training images, whose fd of 13.8 was no worse yet.

    Why: with few images the discriminator learns which they are in place of what they show, and the generator learns
    ever less from it (Karras et al. 2020, arXiv:2006.06676, sec. 2, and eq. 1 for r_v).

    Try: more images. model.dropout, where the model has it. loss.r1. A quarter of train.discriminator.lr. Fewer
    train.epochs, and the best checkpoint.

    Harmless: as long as fd falls. A dozen held-out images give a noisy r_v, a larger data.held_out a better one.
    """,
    "d-too-weak": f"""the discriminator guesses, though the images are bad

    Seen: the discriminator was right about fewer than {GUESSING_ACCURACY:.0%} of the images (accuracy below
    {GUESSING_ACCURACY}; 0.5 is guessing), fd was above {FAR_FD}, and the best fd did not fall by more than one
    deviation of the floor. Measured on 14x14 digits with a generator that learns much faster than the discriminator:
    accuracy 0.39, fd 33, floor about 1.

    Why: the generator has moved on before the discriminator has learned what is wrong with its images, and so is led
    nowhere. Each player needs a rate that the other can follow (Heusel et al. 2017, arXiv:1706.08500).

    Try: a quarter of train.generator.lr, or a larger train.discriminator.lr. Less model.dropout. A smaller loss.r1 or
    loss.gradient_penalty. A larger discriminator.

    Harmless: near the floor an accuracy of 0.5 is the goal (Goodfellow et al. 2014, arXiv:1406.2661, sec. 4.1), and
    this diagnosis is not made. It takes eleven measurements, so that short runs never get it.
    """,
    "mode-collapse": f"""the generator makes few different images

    Seen: there were fewer than {FEW_DISTINCT_IMAGES} distinct images, or than half as many as there are training
    images. Of n images with c pairs that are as near to each other as the nearest 1% of real images are,
    n(n-1)/(2c) are distinct; with fewer than {MIN_COLLISIONS} pairs nothing is said. Or a class came up less than 10%
    as often as it should. And the best fd has not fallen for {STALLED_MEASUREMENTS} measurements, or images are few
    and it is below {FORMED_FD_SHARE} of the first: young images are all alike. Measured on 14x14 digits: 8 with
    latent_dim: 1, more than 100,000 in a healthy run.

    Why: in a small set two draws are soon the same, as with birthdays (Arora and Zhang 2017, arXiv:1706.08224). The
    discriminator looks at one image at a time, so that nothing asks for different ones (Salimans et al. 2016,
    arXiv:1606.03498, sec. 3.2). Classes show the same by name (Richardson and Weiss 2018, arXiv:1805.12462).

    Try: a quarter of train.generator.lr. A larger model.latent_dim, where it is small. A larger train.batch_size.
    loss.r1, or loss: wasserstein with loss.gradient_penalty: 10. The best checkpoint, which may be from before.

    Harmless: where the data repeat a few images. As long as fd falls this diagnosis is not made: in the first epochs
    of every run all images are alike.
    """,
    "memorised": f"""the generator copies training images

    Seen: C_T was below {COPYING_C_T}; and fewer than {COPYING_ACCURACY:.0%} of the generated images had another
    generated one as their nearest neighbour (1-NN accuracy below {COPYING_ACCURACY}), or more than {COPIED_SHARE:.0%}
    were nearer to a training image than the nearest 1% of real images are to each other. Needs {MIN_HELD_OUT}
    held-out images. Measured on 14x14
    digits: C_T -24.5 for copies, +0.4 for real held-out images.

    Why: C_T compares how near generated and held-out images come to training ones; below 0 the generated ones come
    nearer (Meehan et al. 2020, arXiv:2004.05675). A generator that is large for the number of images can keep them by
    heart. fd rewards that: copies had 0.4, real held-out images 1.1.

    Try: more images. Fewer train.epochs, or a checkpoint from before, which train.keep_every keeps: the best one is
    chosen by fd and may hold the copies. A smaller generator. model.dropout.

    Harmless: where only the course of training matters. Only a C_T below 0 means something: it was +17 to +24 in runs
    whose images were still far from all real ones. Nor is it enough alone, since grey images are near to
    everything: it was -10.6 after the first epoch of a run.
    """,
    "unchanged": f"""translated images are those that were given

    Seen: after the first {WARM_UP_STEPS} steps the mean absolute difference between an image and what the generator
    made of it was below {UNCHANGED_DIFFERENCE}, of a range from -1 to 1. Not told of pairs that differ by less than
    twice that.

    Why: giving back the source costs a CycleGAN nothing of its cycle and identity losses, which are large beside the
    adversarial one (Zhu et al. 2017, arXiv:1703.10593, sec. 5.2), and fools a discriminator that has not yet learned
    how the two kinds differ. fd of both kinds together would not see it, which is why it is measured within each.

    Try: train on, first of all. model.identity: 0. A smaller model.cycle. A larger train.discriminator.lr.

    Harmless: where the two kinds hardly differ.
    """,
    "no-progress": f"""the images get no better

    Seen: the best fd did not fall by more than one deviation of its floor, which is fd of real images from other real
    ones, and fd was more than {NOISE_DEVIATIONS} deviations above that floor.

    Why: the players circle, or have come to a balance. That is information and no fault. At the floor nothing better
    can be measured (Chong and Forsyth 2020, arXiv:1911.07023), and this diagnosis is not made.

    Try: the best checkpoint. A quarter of train.optimizer.lr, or gantool tune. More images. A larger
    train.evaluate_images, which makes small steps visible.

    Harmless: always. In a long run it may pass, and with a small train.evaluate_every the measurements are only a few
    steps apart. A run with fewer measurements than this takes never has it.
    """,
}

SUMMARIES: Mapping[str, str] = {code: meaning.partition("\n")[0] for code, meaning in _MEANINGS.items()}
"""What each diagnosis says, by code, the gravest first."""

CODES = tuple(SUMMARIES)
"""The codes of all diagnoses. `nonfinite` ends a run at once: the engine tells it, and no rule here."""
