"""One step of a game, and the exact state to go on from. Knows no model by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gantool import devices
from gantool.batches import Labeled
from gantool.models.base import Model, Turn
from gantool.recipe import Train

LOOK_EVERY = 10  # steps between looks at the gradients: each one reads all of them once more


class Trainer:
    """Applies the turns of a game: Adam for each player, on the players' own weights only.

    Args:
        model: already on its device.
        settings: the recipe's `train` block.
        device: where the model and its batches are.
    """

    def __init__(self, model: Model, settings: Train, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.names: dict[nn.Module, str] = {}
        self.optimizers: dict[nn.Module, torch.optim.Adam] = {}
        for name, player in model.named_children():
            adam = settings.adam(name)
            self.names[player] = name
            self.optimizers[player] = torch.optim.Adam(player.parameters(), lr=adam.lr, betas=adam.betas, fused=True)
        self.randomness = devices.seeded(device, settings.seed)
        self.steps = 0

    def step(self, batch: Labeled) -> dict[str, Tensor]:
        """Play one step of the game and apply it.

        Returns:
            scalars on the device, detached: `<player>/<loss>`, `scores/<name>`, and in every tenth step the norm of a
            player's whole gradient as `gradients/<player>`. Of a player that moves more than once in a step, the last
            turn's.
        """
        told: dict[str, Tensor] = {}
        look = self.steps % LOOK_EVERY == 0
        self.steps += 1
        for move in self.model.play(batch):
            turns = (move,) if isinstance(move, Turn) else move
            for turn in turns:
                self._gradients(turn, keep_graph=turn is not turns[-1])
            for turn in turns:
                self.optimizers[turn.player].step()
                name = self.names[turn.player]
                told.update({f"{name}/{loss}": value.detach() for loss, value in turn.losses.items()})
                told.update({f"scores/{score}": value for score, value in turn.scores.items()})
                if look:
                    gradients = [weight.grad for weight in turn.player.parameters() if weight.grad is not None]
                    told[f"gradients/{name}"] = torch.nn.utils.get_total_norm(gradients)
        return told

    def _gradients(self, turn: Turn, *, keep_graph: bool) -> None:
        self.optimizers[turn.player].zero_grad(set_to_none=True)
        # `inputs` keeps a player off the other's weights, and skips the work of the other's weight gradients.
        torch.autograd.backward(
            torch.stack(list(turn.losses.values())).sum(),
            inputs=list(turn.player.parameters()),
            retain_graph=keep_graph,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give all that the next step depends on besides the batch: tensors and plain values only."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {self.names[player]: adam.state_dict() for player, adam in self.optimizers.items()},
            "randomness": dict(self.randomness),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]
        for player, adam in self.optimizers.items():
            adam.load_state_dict(state["optimizers"][self.names[player]])
        self.randomness.update({name: value.cpu() for name, value in state["randomness"].items()})
