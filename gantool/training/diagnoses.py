"""The problems that a run can have: of each one the condition, the message, the advice and the manual page together.

`gantool explain` prints the pages, and docs/diagnoses.md holds them. `rule.Rule` describes the attributes and methods.
"""
# ruff: noqa: D101, D102

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from gantool.errors import MAX_LISTED, RunError, unknown
from gantool.training.rule import FORMED_FD_SHARE, Observation, Rule, number

WARM_UP_STEPS = 100  # steps in which a sure D and flat images mean nothing
FEW_DISTINCT_IMAGES = 50
COPYING_C_T, COPYING_ACCURACY, COPIED_SHARE, MIN_HELD_OUT = -3, 0.4, 0.1, 12  # see `Memorised`
EXPLAIN_COLUMNS = 80  # characters in a line of `explain`


def copies(metrics: Mapping[str, float], held_out: float) -> bool:
    """Return whether metrics say that images are copies; without enough held-out images this cannot be known."""
    near = metrics.get("nearest_neighbour_fake", 1.0) < COPYING_ACCURACY or metrics.get("copied", 0.0) > COPIED_SHARE
    return held_out >= MIN_HELD_OUT and metrics.get("copying", 0.0) < COPYING_C_T and near


class NonFinite(Rule):
    """The loop itself ends such a run at once."""

    code = "nonfinite"
    manual = """a loss or a weight became NaN or infinite

    Seen: a loss, another logged number or a weight became NaN or infinite. Once is enough. The training ended and
    returned to its last good checkpoint, and the best one is kept.

    Why: steps were so large that a number overflowed. Adam moves a weight by up to about the learning rate in a step,
    however small the gradient is (Kingma and Ba 2015, arXiv:1412.6980, sec. 2.1). So the rate is the first suspect.
    The second is a critic without a limit on its slope (Gulrajani et al. 2017, arXiv:1704.00028).

    Try: a new run with a quarter of train.optimizer.lr. train.optimizer.betas.0: 0.5 instead of 0.9. With loss:
    wasserstein, loss.gradient_penalty: 10.

    Harmless: never. The best checkpoint is not affected."""


class Diverged(Rule):
    code = "diverged"
    length, every_epoch = 2, True
    advice = "lower both rates ({both})"
    manual = f"""the images or a loss have gone to a limit

    Seen: generated pixels varied less than 0.05 times as much as real ones, after the first {WARM_UP_STEPS} steps. Or
    more than 50% of them were black or white (|x| > 0.99), and fewer than 10% of the real ones were (or 95% and 80%).
    Or a loss was farther from 0 than 100, or than 1e6 if its optimum is not known, as with wasserstein and hinge.
    Measured on 14x14 digits with a learning rate of 0.3: a DCGAN whose pixels varied 0.00 times as much, fd 960 (of a
    healthy run: 13.7), and gan14 with a loss of 5,450 and fd 59. In an epoch without a measurement, the 16 images of
    its grid decide. A run that ends diverged exits with 4.

    Why: steps are so large that weights grow without bound. They drive the tanh at the end of the generator to its
    limits, where hardly any gradient passes (1 - tanh^2 is 0.02 at 0.99). So a run seldom recovers. d-overpowers,
    g-grad-vanished and mode-collapse often follow from it. Solve this problem first.

    Try: a new run with a quarter of train.generator.lr and train.discriminator.lr, or of train.optimizer.lr, which is
    for both. If they are above 0.01, the usual 0.0002. train.optimizer.betas.0: 0.5 instead of 0.9, with which training
    oscillated for Radford et al. 2016 (arXiv:1511.06434, sec. 4). With loss: wasserstein, loss.gradient_penalty: 10.

    Harmless: never if images are at a limit. Good images that are all the same are a mode-collapse only."""

    def holds(self, now: Observation) -> bool:
        return self._flat(now) or self._saturated(now) or self._large(now)

    def seen(self, now: Observation) -> str:
        parts = []
        if self._flat(now):
            parts.append(f"generated pixels vary {now['contrast']:.2f} times as much as real ones")
        if self._saturated(now):
            real = now["real_saturated"]
            parts.append(f"{now['saturated']:.0%} of generated pixels and {real:.0%} of real ones are at a limit")
        if self._large(now):
            name, value = self._largest(now)
            parts.append(f"{name} {number(value)}")
        return ", ".join(parts)

    def _flat(self, now: Observation) -> bool:
        return now.step > WARM_UP_STEPS and now["contrast"] < 0.05

    def _saturated(self, now: Observation) -> bool:
        made, real = now["saturated"], now["real_saturated"]
        return (made > 0.5 and real < 0.1) or (made > 0.95 and real < 0.8)

    def _large(self, now: Observation) -> bool:
        return abs(self._largest(now)[1]) > (1e6 if now.drifting else 100)

    def _largest(self, now: Observation) -> tuple[str, float]:
        finite = [(name, value) for name, value in now.losses.items() if math.isfinite(value)]
        return max(finite, key=lambda loss: abs(loss[1]), default=("", 0.0))


class Overpowers(Rule):
    code = "d-overpowers"
    length, every_epoch = 5, True
    needs: tuple[str, ...] = ("accuracy", "fake_answer")
    advice = "lower the discriminator's rate ({discriminator}) or give it dropout"
    manual = f"""the discriminator recognises every generated image

    Seen: the discriminator was right about more than 98% of the images (accuracy above 0.98), and its mean answer to
    generated ones, D(G(z)), was below 0.01. The first {WARM_UP_STEPS} steps do not count. Measured on 14x14 digits with
    a discriminator that learns 250 times as fast as the generator: accuracy 1.00, D(G(z)) 0.000, fd 336 (of a healthy
    run: 13.7).

    Why: the answer of a sure discriminator hardly changes when an image changes a little, so the generator learns
    little from it (Goodfellow et al. 2014, arXiv:1406.2661, sec. 3; Arjovsky and Bottou 2017, arXiv:1701.04862, sec.
    2). The discriminator learns too fast, is too large, or has too few images.

    Try: a quarter of train.discriminator.lr. model.dropout: 0.3, if the model has it. train.optimizer.betas.0: 0.5
    instead of 0.9, with which, and dropout, gan28 learned the 1,797 digits. loss.r1 or loss.gradient_penalty, which
    keep the discriminator smooth (Mescheder et al. 2018, arXiv:1801.04406). More images.

    Harmless: in the first {WARM_UP_STEPS} steps an accuracy of 1.00 is normal. Later it may pass as long as fd falls. A
    loss whose answers are no probabilities never has this diagnosis."""

    def holds(self, now: Observation) -> bool:
        return now.step > WARM_UP_STEPS and now["accuracy"] > 0.98 and now["fake_answer"] < 0.01

    def seen(self, now: Observation) -> str:
        return f"D accuracy {now['accuracy']:.2f}, D(G(z)) {now['fake_answer']:.3f}"


class Vanished(Overpowers):
    code = "g-grad-vanished"
    needs = ("accuracy", "fake_answer", "gradient_left")
    advice = (
        "with loss minimax take --set loss.name=non_saturating, with another lower the discriminator's rate "
        "({discriminator})"
    )
    manual = """the generator gets almost no gradient

    Seen: the discriminator overpowers (gantool explain d-overpowers), and the norm of the generator's gradient was
    below 0.001 of its largest in the first 50 steps. Measured on 14x14 digits with the same discriminator, which
    learned too fast: 0.0005 with loss: minimax, 1.1 with loss: non_saturating.

    Why: the minimax loss, log(1 - D(G(z))), is flat if D(G(z)) is near 0, which it is for a bad generator (Goodfellow
    et al. 2014, arXiv:1406.2661, sec. 3; Arjovsky and Bottou 2017, arXiv:1701.04862, sec. 2.2). With other losses it
    was seen only in a run that had diverged.

    Try: loss: non_saturating, whose gradient is largest there. Then the remedies of d-overpowers: a quarter of
    train.discriminator.lr, model.dropout, loss.r1.

    Harmless: never while it lasts, since the generator does not learn."""

    def holds(self, now: Observation) -> bool:
        return super().holds(now) and now["gradient_left"] < 1e-3

    def seen(self, now: Observation) -> str:
        left = number(now["gradient_left"])
        return f"the generator's gradient is {left} of its first, D(G(z)) {now['fake_answer']:.3f}"


class Overfit(Rule):
    code = "d-overfit"
    length, needs = 3, ("real_train_score", "real_held_out_score", "fake_score")
    advice = "get more images, give the discriminator dropout, or stop early and take the best checkpoint"
    manual = """the discriminator knows the training images by heart

    Seen: r_v, of raw scores, was above 0.5. It is the difference between the scores of training and held-out images,
    over the difference between those of training and generated images: 0 if held-out images are scored as training
    images, 1 if they are scored as generated ones. It counts if training and generated images are more than 0.5 apart.
    Measured on 14x14 digits: 0.15 in a healthy run, 1.27 with 20 training images, whose fd of 13.8 was no worse yet.

    Why: with few images the discriminator learns which they are instead of what they show, and the generator learns
    less and less from it (Karras et al. 2020, arXiv:2006.06676, sec. 2, and eq. 1 for r_v).

    Try: more images. model.dropout, if the model has it. loss.r1. A quarter of train.discriminator.lr. Fewer
    train.epochs, and the best checkpoint.

    Harmless: as long as fd falls. A dozen held-out images give a noisy r_v, a larger data.held_out a better one."""

    def holds(self, now: Observation) -> bool:
        return now["real_train_score"] - now["fake_score"] > 0.5 and self._ratio(now) > 0.5

    def seen(self, now: Observation) -> str:
        known, held_out, made = (f"{now[name]:.2f}" for name in self.needs)
        scores = f"training images {known}, held-out ones {held_out}, generated ones {made}"
        return f"D scores {scores} (r_v {self._ratio(now):.2f})"

    def _ratio(self, now: Observation) -> float:
        """Return r_v of Karras et al. 2020, arXiv:2006.06676, eq. 1."""
        known, held_out, made = (now[name] for name in self.needs)
        return (known - held_out) / (known - made)


class TooWeak(Rule):
    code = "d-too-weak"
    length, stalls, until_better, needs = 10, 10, True, ("accuracy", "fd")
    advice = "lower the generator's rate ({generator}) or take dropout from the discriminator"
    manual = """the discriminator guesses, although the images are bad

    Seen: the discriminator was right about fewer than 52% of the images (accuracy below 0.52; 0.5 is guessing), fd was
    above 5, and the best fd did not fall by more than one deviation of the floor. Measured on 14x14 digits with a
    generator that learns much faster than the discriminator: accuracy 0.39, fd 33, floor about 1.

    Why: the generator changes before the discriminator has learned what is wrong with its images, so it gets no useful
    direction. Each player needs a rate that the other can follow (Heusel et al. 2017, arXiv:1706.08500).

    Try: a quarter of train.generator.lr, or a larger train.discriminator.lr. Less model.dropout. A smaller loss.r1 or
    loss.gradient_penalty. A larger discriminator.

    Harmless: near the floor an accuracy of 0.5 is the goal (Goodfellow et al. 2014, arXiv:1406.2661, sec. 4.1), and
    this diagnosis is not made. It takes eleven measurements, so short runs never get it."""

    def holds(self, now: Observation) -> bool:
        return now["accuracy"] < 0.52 and now["fd"] > 5

    def seen(self, now: Observation) -> str:
        return f"D accuracy {now['accuracy']:.2f}, fd {number(now['fd'])} (1 is real) and not falling"


class Collapse(Rule):
    code = "mode-collapse"
    length, stalls = 2, 5  # young images are alike because none is good yet: fd must stand still
    advice = "lower the generator's rate ({generator}), or raise model.latent_dim or loss.r1"
    manual = f"""the generator makes few different images

    Seen: there were fewer than {FEW_DISTINCT_IMAGES} distinct images, or fewer than half as many as training images.
    Of n images with c pairs that are as near to each other as the nearest 1% of real images are, n(n-1)/(2c) are
    distinct; fewer than 10 pairs do not count. Or a class appeared less than 10% as often as it should. And the best
    fd has not fallen for 5 measurements, or images are few and fd is below {FORMED_FD_SHARE} of the first, since young
    images are all alike. Measured on 14x14 digits: 8 with latent_dim: 1, more than 100,000 in a healthy run.

    Why: in a small set two draws are soon the same, as with birthdays (Arora and Zhang 2017, arXiv:1706.08224). The
    discriminator looks at one image at a time, so nothing asks for different ones (Salimans et al. 2016,
    arXiv:1606.03498, sec. 3.2). Classes show the same by name (Richardson and Weiss 2018, arXiv:1805.12462).

    Try: a quarter of train.generator.lr. A larger model.latent_dim, if it is small. A larger train.batch_size. loss.r1,
    or loss: wasserstein with loss.gradient_penalty: 10. The best checkpoint, which may be from before.

    Harmless: if the data repeat a few images. As long as fd falls this diagnosis is not made, because in the first
    epochs of every run all images are alike."""

    def holds(self, now: Observation) -> bool:
        return self.formed(now) or bool(now.lost_classes)

    def formed(self, now: Observation) -> bool:
        return now["collisions"] >= 10 and now["support"] < min(FEW_DISTINCT_IMAGES, now["train_images"] / 2)

    def seen(self, now: Observation) -> str:
        parts = []
        if self.formed(now):
            parts.append(f"about {now['support']:.0f} distinct images ({number(now['collisions'])} pairs alike)")
        if now.lost_classes:
            more = len(now.lost_classes) - MAX_LISTED
            names = ", ".join(now.lost_classes[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
            parts.append(f"hardly any image of {names}")
        return " and ".join(parts)


class Memorised(Rule):
    code = "memorised"
    length, needs = 2, ("copying",)
    advice = "get more images, or train for fewer epochs; fd is no guide here, it rewards copies"
    manual = f"""the generator copies training images

    Seen: C_T was below {COPYING_C_T}. And fewer than {COPYING_ACCURACY:.0%} of the generated images had another
    generated one as their nearest neighbour (1-NN accuracy below {COPYING_ACCURACY}), or more than {COPIED_SHARE:.0%}
    were nearer to a training image than the nearest 1% of real images are to each other. Needs {MIN_HELD_OUT} held-out
    images. Measured on 14x14 digits: C_T -24.5 for copies, +0.4 for real held-out images.

    Why: C_T compares how near generated and held-out images are to training images; below 0 the generated ones are
    nearer (Meehan et al. 2020, arXiv:2004.05675). A generator that is large for the number of images can store them.
    fd rewards that: copies had 0.4, real held-out images 1.1.

    Try: more images. Fewer train.epochs, or an earlier checkpoint, which train.keep_every keeps: the best one is chosen
    by fd and may hold the copies. A smaller generator. model.dropout.

    Harmless: if only the course of training matters. Only a C_T below 0 means something: it was +17 to +24 in runs
    whose images were still far from all real ones. It is not enough alone, since grey images are near to everything: it
    was -10.6 after the first epoch of a run."""

    def holds(self, now: Observation) -> bool:
        return copies(now.values, now["held_out_images"])

    def seen(self, now: Observation) -> str:
        near = f"1-NN accuracy of generated images {now['nearest_neighbour_fake']:.2f}"
        return f"C_T {now['copying']:.1f}, {near}, {now['copied']:.0%} as good as copies"


class Unchanged(Rule):
    code = "unchanged"
    length, needs = 2, ("change",)
    advice = "lower the weights that keep images as they are (--set model.cycle=5 --set model.identity=0), or train on"
    manual = f"""translations equal their sources

    Seen: after the first {WARM_UP_STEPS} steps the mean absolute difference between an image and its translation was
    below 0.04, of a range from -1 to 1. Pairs that differ by less than twice that are not diagnosed.

    Why: to return the source costs a CycleGAN nothing of its cycle and identity losses, which are large beside the
    adversarial one (Zhu et al. 2017, arXiv:1703.10593, sec. 5.2), and it deceives a discriminator that has not yet
    learned how the two kinds differ. fd of both kinds together would not show it, so it is measured within each.

    Try: train on, first of all. model.identity: 0. A smaller model.cycle. A larger train.discriminator.lr.

    Harmless: if the two kinds hardly differ."""

    def holds(self, now: Observation) -> bool:
        return now.step > WARM_UP_STEPS and now["change"] < 0.04 and not now["real_change"] < 0.08

    def seen(self, now: Observation) -> str:
        return f"translated images differ by {now['change']:.3f} of 2 from their sources"


class NoProgress(Rule):
    code = "no-progress"
    length, stalls, until_better, needs = 20, 20, True, ("fd", "floor_deviation")
    advice = "stop here and take the best checkpoint, or search better settings with gantool tune"
    manual = """the images get no better

    Seen: the best fd did not fall by more than one deviation of its floor, which is fd of real images from other real
    ones, and fd was more than 2 deviations above that floor.

    Why: the players circle, or have reached a balance. That is information and no fault. At the floor nothing better
    can be measured (Chong and Forsyth 2020, arXiv:1911.07023), and this diagnosis is not made.

    Try: the best checkpoint. A quarter of train.optimizer.lr, or gantool tune. More images. A larger
    train.evaluate_images, which makes small steps visible.

    Harmless: always. In a long run it may pass, and with a small train.evaluate_every the measurements are only a few
    steps apart. A run with fewer measurements than this takes never has it."""

    def holds(self, now: Observation) -> bool:
        return now["fd"] - 1 > 2 * now["floor_deviation"]

    def seen(self, now: Observation) -> str:
        return f"fd {number(now['fd'])}, and the best not lower by more than {number(now['floor_deviation'])}"


RULES: tuple[Rule, ...] = (
    Diverged(), Overpowers(), Vanished(), Overfit(), TooWeak(), Collapse(), Memorised(), Unchanged(), NoProgress()
)  # fmt: skip
_MANUALS = {rule.code: rule.manual.partition("\n") for rule in (NonFinite(), *RULES)}

SUMMARIES: Mapping[str, str] = {code: summary for code, (summary, _, _) in _MANUALS.items()}
"""The meaning of each diagnosis, by code, the most serious first."""

CODES = tuple(SUMMARIES)


def explain(code: str) -> str:
    """Return the manual page of a diagnosis.

    Raises:
        RunError: there is no such diagnosis.
    """
    if code not in _MANUALS:
        raise RunError(unknown("diagnosis", code, CODES))
    summary, _, text = _MANUALS[code]
    paragraphs = [f"{code}: {summary}", *text.strip().split("\n\n")]
    paragraphs += [
        f"Reported {rule.row}, and over if it was not so at 2 in a row." for rule in RULES if rule.code == code
    ]
    return "\n\n".join(
        textwrap.fill(" ".join(each.split()), EXPLAIN_COLUMNS, break_on_hyphens=False, break_long_words=False)
        for each in paragraphs
    )
