"""One training step, and the exact state to resume from. Knows no model by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from gantool import devices
from gantool.batches import Batch
from gantool.models.base import Model, Turn
from gantool.recipe.blocks import Optimizer, Train

GRAD_NORM_EVERY = 10  # steps from one logged gradient norm to the next


class Trainer:
    """Applies the turns of a model, which is on its device: an optimizer for each player, on its own weights only."""

    def __init__(self, model: Model, settings: Train, device: torch.device) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        self.names: dict[nn.Module, str] = {}
        self.optimizers: dict[nn.Module, torch.optim.Optimizer] = {}
        self.rates: dict[nn.Module, float] = {}
        self.stateful_children: dict[str, nn.Module] = {}  # children without weights
        for name, child in model.named_children():
            if _has_weights(child):
                own = settings.optimizer_of(name)
                self.names[child], self.rates[child] = name, own.lr
                self.optimizers[child] = _optimizer(child, own)
            else:
                self.stateful_children[name] = child
        self.ema_generator: nn.Module | None = None  # the generator with the running means of its weights
        if settings.ema is not None:
            self.ema_generator = deepcopy(model.get_submodule("generator")).requires_grad_(False)
        self.rng_states = devices.rng_states(device, settings.seed)
        self.steps = 0

    def step(self, batch: Batch, epochs: float = 0.0) -> dict[str, Tensor]:
        """Play one step and apply it.

        Args:
            batch: as the model consumes it.
            epochs: trained before this step, which decide the learning rate.

        Returns:
            scalars on the device, detached: `<player>/<loss>`, `scores/<name>`, and in every tenth step the norm of a
            player's whole gradient as `gradients/<player>`; the last turn's if a player moves more than once.
        """
        logs: dict[str, Tensor] = {}
        log_norms = self.steps % GRAD_NORM_EVERY == 0
        self.steps += 1
        self._set_rates(self.settings.rate(epochs))
        for move in self.model.play(batch):
            turns = (move,) if isinstance(move, Turn) else move
            for turn in turns:
                self._gradients(turn, keep_graph=turn is not turns[-1])
            for turn in turns:
                self.optimizers[turn.player].step()
                name = self.names[turn.player]
                logs.update({f"{name}/{loss}": value.detach() for loss, value in turn.losses.items()})
                logs.update({f"scores/{score}": value for score, value in turn.scores.items()})
                if log_norms:
                    gradients = [weight.grad for weight in turn.player.parameters() if weight.grad is not None]
                    logs[f"gradients/{name}"] = torch.nn.utils.get_total_norm(gradients)
        if self.ema_generator is not None:
            self._update_ema(self.ema_generator)
        return logs

    def _gradients(self, turn: Turn, *, keep_graph: bool) -> None:
        self.optimizers[turn.player].zero_grad(set_to_none=True)
        # `inputs` spares the other player's weights, and the work of their gradients.
        torch.autograd.backward(
            torch.stack(list(turn.losses.values())).sum(),
            inputs=list(turn.player.parameters()),
            retain_graph=keep_graph,
        )

    def _set_rates(self, share: float) -> None:
        if self.settings.decay_after is not None:
            for player, optimizer in self.optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = share * self.rates[player]

    @torch.no_grad()
    def _update_ema(self, ema_generator: nn.Module) -> None:
        """Move the running means towards the weights; the first steps count less."""
        generator = self.model.get_submodule("generator")
        kept = min(self.settings.ema or 0.0, self.steps / (self.steps + 9))
        torch._foreach_lerp_(list(ema_generator.parameters()), list(generator.parameters()), 1 - kept)
        for mean, value in zip(ema_generator.buffers(), generator.buffers(), strict=True):
            mean.copy_(value)

    @contextlib.contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Use the running means of the generator's weights, if the recipe asks for them."""
        if self.ema_generator is None:
            yield
            return
        generator = self.model.get_submodule("generator")
        self.model.generator = self.ema_generator
        try:
            yield
        finally:
            self.model.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on besides the batch and the settings: tensors and `steps`."""
        ema_generator = None if self.ema_generator is None else self.ema_generator.state_dict()
        return {
            "model": self.model.state_dict(),
            "optimizers": {self.names[player]: self._optimizer_state(player) for player in self.optimizers},
            "ema_generator": ema_generator,
            "stateful_children": {name: dict(child.named_buffers()) for name, child in self.stateful_children.items()},
            "rng_states": dict(self.rng_states),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state that `state_dict` returned, for the same model and settings."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]
        for player in self.optimizers:
            known = state["optimizers"][self.names[player]]
            for index, own in self._optimizer_state(player).items():
                for name, value in own.items():
                    value.copy_(known[index][name])
        if self.ema_generator is not None:
            self.ema_generator.load_state_dict(state["ema_generator"])
        for name, child in self.stateful_children.items():
            for buffer, value in state["stateful_children"][name].items():
                child.get_buffer(buffer).copy_(value)
        self.rng_states.update(state["rng_states"])

    def _optimizer_state(self, player: nn.Module) -> dict[str, dict[str, Tensor]]:
        """Return the tensors that an optimizer keeps of each weight, by the weight's number; zeros before a step.

        An optimizer that finds zeros steps as one that has not begun.
        """
        optimizer, settings = self.optimizers[player], self.settings.optimizer_of(self.names[player])
        states: dict[str, dict[str, Tensor]] = {}
        for index, weight in enumerate(player.parameters()):
            if weight not in optimizer.state:
                optimizer.state[weight] = _zeros(weight, settings)
            if optimizer.state[weight]:
                states[str(index)] = dict(optimizer.state[weight])
        return states


def initial_state(model: Model, settings: Train) -> dict[str, Any]:
    """Return the tensors that `Trainer.state_dict` has before the first step, without random states.

    It makes no optimizer, for the first of which torch loads its compiler for more than a second.
    """
    children = dict(model.named_children())
    players = {name: child for name, child in children.items() if _has_weights(child)}
    return {
        "model": model.state_dict(),
        "optimizers": {
            name: {
                str(index): zeros
                for index, weight in enumerate(player.parameters())
                if (zeros := _zeros(weight, settings.optimizer_of(name)))
            }
            for name, player in players.items()
        },
        "ema_generator": None if settings.ema is None else model.get_submodule("generator").state_dict(),
        "stateful_children": {name: dict(children[name].named_buffers()) for name in children.keys() - players.keys()},
    }


def _has_weights(child: nn.Module) -> bool:
    return any(True for _ in child.parameters())


def _zeros(weight: Tensor, settings: Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer keeps of a weight before its first step."""
    # Not zeros_like, for which the meta device loads a library of half a second.
    first, second = (
        torch.empty_strided(weight.size(), weight.stride(), dtype=weight.dtype, device=weight.device).zero_()
        for _ in range(2)
    )
    if settings.name == "sgd":
        return {"momentum_buffer": first} if settings.momentum else {}
    step = torch.zeros((), dtype=torch.float32, device=weight.device)
    return {"step": step, "exp_avg": first, "exp_avg_sq": second}


def _optimizer(player: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    if settings.name == "sgd":
        return torch.optim.SGD(player.parameters(), lr=settings.lr, momentum=settings.momentum, fused=True)
    return torch.optim.Adam(player.parameters(), lr=settings.lr, betas=settings.betas, fused=True)
