"""One training step: the turns of the players, their settings, and the exact state."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from gantool import devices
from gantool.batches import ImageSpec, Labeled
from gantool.models import losses
from gantool.models.base import Generative, Turn
from gantool.models.dcgan_tf import DCGANTF
from gantool.models.losses import Adversarial
from gantool.models.mlp import MLP
from gantool.recipe.blocks import Optimizer, PlayerOptimizer, Train
from gantool.training.trainer import Trainer
from torch import nn

CPU = torch.device("cpu")
DATA = ImageSpec(1, 4, 4)


def batch(seed=0, count=6):
    generator = torch.Generator().manual_seed(seed)
    return Labeled(torch.rand(count, *DATA.shape, generator=generator) * 2 - 1, torch.zeros(count, dtype=torch.int64))


def mlp(**settings):
    torch.manual_seed(0)
    model = MLP(DATA, losses.find_loss("non_saturating")(), latent_dim=3, generator=[5], discriminator=[6], dropout=0.2)
    return Trainer(model, Train(epochs=1, **settings), CPU)


def step(trainer, given):
    with devices.rng_scope(CPU, trainer.rng_states):
        return trainer.step(given)


class Scripted(Generative):
    """A game that a test writes down: `turns` is called with the model."""

    def __init__(self, turns):
        super().__init__(DATA, Adversarial(losses.LOSSES["hinge"]))
        self.generator = nn.Linear(1, 1, bias=False)
        self.discriminator = nn.Linear(1, 1, bias=False)
        for player in (self.generator, self.discriminator):
            nn.init.ones_(player.weight)
        self.turns = turns

    def play(self, _):
        return self.turns(self)

    def sample(self, prompt):
        return prompt.source


def test_each_player_gets_its_own_settings():
    own = {"generator": PlayerOptimizer(lr=0.4), "discriminator": PlayerOptimizer(betas=(0.6, 0.7))}
    trainer = mlp(optimizer=Optimizer(lr=0.1, betas=(0.2, 0.3)), **own)
    groups = {name: trainer.optimizers[player].param_groups for player, name in trainer.names.items()}
    assert {name: (group["lr"], group["betas"]) for name, (group,) in groups.items()} == {
        "generator": (0.4, (0.2, 0.3)),
        "discriminator": (0.1, (0.6, 0.7)),
    }


def test_a_player_minimises_the_sum_of_its_losses():
    def turns(model):
        weight = model.generator.weight
        yield Turn(model.generator, {"up": -3 * weight.sum(), "down": 2 * weight.sum()})

    trainer = game(turns, optimizer=Optimizer(lr=0.5))
    logs = {name: value.item() for name, value in trainer.step(batch()).items()}
    assert logs == {"generator/up": -3.0, "generator/down": 2.0, "gradients/generator": 1.0}
    assert trainer.model.generator.weight.item() == pytest.approx(1.5)  # Adam's first step is lr long


def test_a_turn_is_applied_before_play_resumes_and_a_players_last_turn_is_logged():
    seen = []

    def turns(model):
        for factor in (1, 2):
            yield Turn(model.discriminator, {"a": factor + model.discriminator.weight.sum()})
            seen.append(model.discriminator.weight.item())

    logs = game(turns, optimizer=Optimizer(lr=0.25)).step(batch())
    assert seen == pytest.approx([0.75, 0.5])
    assert logs["discriminator/a"].item() == 2.75


def test_turns_given_together_take_all_gradients_before_any_weight_moves():
    # The loss is the product of both weights: the gradient of each is the other as it was before.
    taken = []

    def turns(model):
        product = (model.generator.weight * model.discriminator.weight).sum()
        yield (Turn(model.discriminator, {"a": -product}), Turn(model.generator, {"a": product}))
        taken.extend([model.generator.weight.grad.item(), model.discriminator.weight.grad.item()])

    trainer = game(turns, optimizer=Optimizer(lr=0.5))
    trainer.step(batch())
    assert taken == [1.0, -1.0]
    assert trainer.model.discriminator.weight.item() == pytest.approx(1.5)
    assert trainer.model.generator.weight.item() == pytest.approx(0.5)


def test_a_state_does_not_change_with_later_steps():
    trainer = mlp()
    step(trainer, batch())
    before = trainer.state_dict()["rng_states"]["cpu"].clone()
    state = trainer.state_dict()
    step(trainer, batch())
    assert torch.equal(state["rng_states"]["cpu"], before)


def test_every_tenth_step_logs_the_norm_of_each_players_whole_gradient_also_after_a_stop():
    trainer = mlp()
    logs = []
    for index in range(21):
        logs.append(trainer.step(batch()))
        if index == 4:
            state = trainer.state_dict()
            trainer = mlp()
            trainer.load_state_dict(state)
    assert [index for index, one in enumerate(logs) if "gradients/generator" in one] == [0, 10, 20]
    squares = [weight.grad.square().sum() for weight in trainer.model.generator.parameters()]
    assert logs[-1]["gradients/generator"].item() == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-5)


def squares(model):
    """One player after the other lowers the square of its weight, whose gradient is twice the weight."""
    for player in (model.discriminator, model.generator):
        yield Turn(player, {"square": player.weight.square().sum()})


def test_sgd_steps_by_the_gradient_and_a_share_of_the_last_step():
    trainer = game(optimizer=Optimizer(name="sgd", lr=0.125, momentum=0.5))  # powers of two: no rounding
    weight, velocity = 1.0, 0.0
    for _ in range(4):
        trainer.step(batch())
        velocity = 0.5 * velocity + 2 * weight
        weight -= 0.125 * velocity
        assert [player.weight.item() for player in trainer.optimizers] == [weight, weight]


def test_the_rate_that_is_left_shortens_each_players_own_step_and_grows_back_after_a_resume():
    rates = {"optimizer": Optimizer(name="sgd", lr=0.25), "discriminator": PlayerOptimizer(lr=0.125)}
    trainer = Trainer(Scripted(squares), Train(epochs=4, decay_after=2, **rates), CPU)
    weights = [player.weight for player in (trainer.model.generator, trainer.model.discriminator)]
    for epochs, share in ((0.0, 1), (2.0, 1), (3.0, 0.5), (3.5, 0.25), (4.0, 0), (1.0, 1)):
        first, second = (weight.item() for weight in weights)
        trainer.step(batch(), epochs)
        wanted = [first * (1 - 2 * 0.25 * share), second * (1 - 2 * 0.125 * share)]
        assert [weight.item() for weight in weights] == wanted
        trainer.load_state_dict(trainer.state_dict())


def game(turns=squares, **settings):
    return Trainer(Scripted(turns), Train(epochs=1, **settings), CPU)


def averaging(ema, steps):
    """A trainer after some steps, and its generator's weight before and after each of them."""
    trainer, weights = game(optimizer=Optimizer(lr=0.1), ema=ema), [1.0]
    for _ in range(steps):
        trainer.step(batch())
        weights.append(trainer.model.generator.weight.item())
    return trainer, weights


def test_the_first_steps_of_an_average_count_as_a_closed_form_says():
    """While n / (n + 9) of the mean is kept in step n, weight n of N counts C(n + 8, 8) / C(N + 9, 9)."""
    trainer, weights = averaging(0.999, 7)
    counts = [math.comb(number + 8, 8) for number in range(8)]
    assert sum(counts) == math.comb(16, 9)
    wanted = sum(count * weight for count, weight in zip(counts, weights, strict=True)) / sum(counts)
    assert trainer.ema_generator.weight.item() == pytest.approx(wanted, rel=1e-6)


def test_later_an_average_forgets_at_the_recipes_pace():
    trainer, weights = averaging(0.1, 5)  # no less than a tenth is kept from the first step on
    wanted = 0.1**5 * weights[0] + sum(0.9 * 0.1 ** (5 - number) * weights[number] for number in range(1, 6))
    assert trainer.ema_generator.weight.item() == pytest.approx(wanted, rel=1e-6)


def test_the_average_stands_in_for_the_generator_and_its_own_weights_come_back_after_an_error_too():
    trainer, weights = averaging(0.5, 3)
    own = trainer.model.generator
    with trainer.ema_weights():
        assert trainer.model.generator is trainer.ema_generator
        assert list(dict(trainer.model.named_children())) == ["generator", "discriminator"]
    assert trainer.model.generator is own
    with pytest.raises(KeyboardInterrupt), trainer.ema_weights():
        raise KeyboardInterrupt
    assert trainer.model.generator is own
    assert own.weight.item() == weights[-1] != trainer.ema_generator.weight.item()


def test_the_average_is_moved_by_no_optimizer_and_is_part_of_the_exact_state():
    (trainer, _), (fresh, _) = averaging(0.5, 3), averaging(0.5, 0)
    fresh.load_state_dict(deepcopy(trainer.state_dict()))
    assert not any(weight.requires_grad for weight in trainer.ema_generator.parameters())
    for one in (trainer, fresh):
        one.step(batch())
    assert torch.equal(trainer.ema_generator.weight, fresh.ema_generator.weight)


def test_the_average_has_the_running_statistics_of_the_generator():
    torch.manual_seed(0)
    model = DCGANTF(DATA, losses.find_loss("non_saturating")(), latent_dim=3, dropout=0.0)
    trainer = Trainer(model, Train(epochs=1, ema=0.9), CPU)
    trainer.step(batch())
    buffers = dict(model.generator.named_buffers())
    assert buffers["1.num_batches_tracked"] == 1
    assert all(torch.equal(value, buffers[name]) for name, value in trainer.ema_generator.named_buffers())
