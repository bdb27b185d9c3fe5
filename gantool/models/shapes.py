"""The layers of a model: the shapes of their inputs and outputs, and the arithmetic between them.

One step of the game is played on torch's meta device, where tensors have shapes and no values, with a hook on every
layer. torchinfo shows no formulas and does not play a game of several networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from gantool.batches import ImageSpec
from gantool.errors import GantoolError, RecipeError, ShapeError
from gantool.models import build
from gantool.models.base import Model
from gantool.recipe.blocks import Recipe
from gantool.schedule import Work

Pass = tuple[str, nn.Module, tuple[int, ...]]  # name of a layer, the layer, and the shape of its input

MAX_SIDE = 128  # pixels on a side of the largest image that `remedy` tries


@dataclass(frozen=True)
class Layer:
    """One layer of a network in its first pass; shapes are without the batch, `parameters` counts trainable numbers.

    `formula` shows how the output's size, or the number of parameters, is computed.
    """

    network: str
    layer: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    formula: str


def trace(make: Callable[[], Model], device: str = "meta", images: int = 2) -> list[Layer]:
    """Make a model, play one step of its game, and list the layers in the order of their first pass.

    On the meta device weights take no memory.

    Raises:
        ShapeError: the networks do not fit; names the layer, the input that it expected and its actual input.
        RecipeError: a layer needs more than one image.
    """
    layers: list[Layer] = []
    current: list[Pass] = []
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        with torch.device(device):
            model = make()
            batch = model.blank(images)
        _watch(model, layers, current)
        try:
            for _ in model.play(batch):
                pass
        except (RuntimeError, ValueError) as error:
            if not current:
                raise
            name, module, got = current[-1]
            if images == 1 and isinstance(module, _BatchNorm):
                raise RecipeError(
                    f"train.batch_size: {name} ({_kind(module)}) cannot learn from 1 image; use 2 or more"
                ) from None
            raise ShapeError(_misfit(name, module, got, layers, error)) from None
    return layers


def work(make: Callable[[], Model], images: int = 2) -> Work:
    """Count what a model's networks compute for one image in a step of its game, the same on every machine."""
    multiplications = outputs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal multiplications, outputs
        output = output[0] if isinstance(output, tuple) else output
        outputs += output.numel()
        multiplications += _multiplications(module, inputs[0], output)

    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        model = make()
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        for _ in model.play(model.blank(images)):
            pass
    return Work(multiplications / images, outputs / images)


def _multiplications(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Return how many numbers a layer multiplies with a weight; none for layers that only move or scale numbers."""
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * output[:, 0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return module.weight.numel() * inputs[:, 0].numel()
    if isinstance(module, nn.Linear | nn.LSTM):
        weights = sum(weight.numel() for weight in module.parameters())
        return weights * inputs[..., 0].numel()
    return 0


def remedy(recipe: Recipe, data: ImageSpec) -> str:
    """Return how to make a recipe's networks fit each other and images of this size."""
    for count in range(1, 6):
        deeper = _with_rows(recipe, count)
        if deeper and data.height == data.width and _fits(deeper, data):
            rows = "a row" if count == 1 else f"{count} rows"
            second, first = deeper.model.generator[1], deeper.model.discriminator[0]
            return (
                f"add {rows} of stride 2 to each network: {list(second)} after the first of model.generator, "
                f"{list(first)} before the first of model.discriminator; or use data.size={data.height // 2**count}"
            )
    sizes = [size for size in range(1, MAX_SIDE + 1) if _fits(recipe, replace(data, height=size, width=size))]
    if sizes:
        return f"data.size={' or '.join(map(str, sizes[:6]))} would fit"
    return f"no image size up to {MAX_SIDE} fits these layers; change a kernel, stride or padding"


def _fits(recipe: Recipe, data: ImageSpec) -> bool:
    try:
        trace(lambda: build(recipe, data))
    except GantoolError:
        return False
    return True


def _with_rows(recipe: Recipe, count: int) -> Any:
    """Return a recipe of convolutions with more of them, each of which doubles or halves an image's sides."""
    generator, discriminator = (getattr(recipe.model, player, [None]) for player in ("generator", "discriminator"))
    if not (isinstance(generator[0], tuple) and isinstance(discriminator[0], tuple)):
        return None
    grown = [generator[0], *[(generator[0][0], 4, 2, 1)] * count, *generator[1:]]
    shrunk = [*[(discriminator[0][0], 4, 2, 1)] * count, *discriminator]
    model = recipe.model.model_copy(update={"generator": grown, "discriminator": shrunk})
    return recipe.model_copy(update={"model": model})


def _watch(model: Model, layers: list[Layer], current: list[Pass]) -> None:
    """Add each layer to `layers` in its first pass, and keep the layers that are being computed in `current`."""
    seen: set[str] = set()
    children = model.named_children()
    stateful_children = {name for name, child in children if list(child.buffers()) and not list(child.parameters())}
    for name, module in model.named_modules():
        if list(module.children()) or not name or name.partition(".")[0] in stateful_children:
            continue

        def before(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            current.append((name, module, tuple(inputs[0].shape)[1:]))

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Any, name: str = name) -> None:
            output = output[0] if isinstance(output, tuple) else output  # an LSTM returns its state too
            if not output.numel():  # the CPU accepts this, other devices do not
                raise RuntimeError("nothing is left of it")
            current.pop()
            if name not in seen:
                seen.add(name)
                network, _, layer = name.partition(".")
                given, made = tuple(inputs[0].shape)[1:], tuple(output.shape)[1:]
                count = sum(parameter.numel() for parameter in module.parameters())
                formula = _formula(module, given, made, count)
                layers.append(Layer(network, layer, _kind(module), given, made, count, formula))

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)


def _kind(module: nn.Module) -> str:
    """Return what a layer computes by torch's name: `FastConv2d` computes the same as `Conv2d`."""
    return type(module).__name__.removeprefix("Fast")


def _formula(module: nn.Module, inputs: tuple[int, ...], outputs: tuple[int, ...], count: int) -> str:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
        return _sides(*(_size(module, axis, inputs[1 + axis]) for axis in (0, 1)))
    if isinstance(module, nn.ZeroPad2d | nn.ReflectionPad2d):
        left, right, top, bottom = module.padding
        height = f"{inputs[1]} {top:+d} {bottom:+d} = {outputs[1]}"
        return _sides(height, f"{inputs[2]} {left:+d} {right:+d} = {outputs[2]}")
    if isinstance(module, nn.Flatten):
        return f"{'*'.join(map(str, inputs))} = {math.prod(inputs)}"
    if isinstance(module, nn.Unflatten):
        return f"{math.prod(inputs)} = {'*'.join(map(str, outputs))}"
    return _parameters(module, count)


def _parameters(module: nn.Module, count: int) -> str:
    """Return the formula of a layer's number of parameters, if it has one."""
    if isinstance(module, nn.Linear):
        bias = f" + {module.out_features}" if module.bias is not None else ""
        return f"{module.in_features}*{module.out_features}{bias} = {count} parameters"
    if isinstance(module, nn.Embedding):
        return f"{module.num_embeddings}*{module.embedding_dim} = {count} parameters"
    if isinstance(module, nn.LSTM):
        wide, hidden = module.input_size, module.hidden_size
        return f"4*({hidden}*{wide} + {hidden}*{hidden} + {hidden} + {hidden}) = {count} parameters"
    if count and hasattr(module, "num_features"):
        return f"2*{module.num_features} = {count} parameters"
    return ""


def _sides(height: str, width: str) -> str:
    """Join the formulas of height and width, if they differ."""
    return height if height == width else f"height {height}, width {width}"


def _size(module: nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d, axis: int, size: int) -> str:
    """Return the formula of one side's size; dilation widens the kernel.

    Transposed: (input - 1)*stride - 2*padding + kernel + output_padding. Others, exact and then rounded:
    (input - kernel + 2*padding)/stride + 1.
    """
    kernel, stride, padding, dilation = _numbers(module, axis)
    spread = dilation * (kernel - 1) + 1
    if isinstance(module, nn.ConvTranspose2d):
        extra = module.output_padding[axis]
        result = (size - 1) * stride - 2 * padding + spread + extra
        return f"({size} - 1)*{stride} - 2*{padding} + {spread}{f' + {extra}' if extra else ''} = {result}"
    exact = (size - spread + 2 * padding) / stride + 1
    whole = math.ceil(exact) if getattr(module, "ceil_mode", False) else math.floor(exact)
    rounded = f" -> {whole}" if exact != whole else ""
    return f"({size} - {spread} + 2*{padding:g})/{stride} + 1 = {round(exact, 4):.12g}{rounded}"


def _numbers(module: Any, axis: int) -> tuple[int, int, float, int]:
    """Return kernel, stride, padding and dilation along one side."""
    kernel, stride, dilation = (_pair(part)[axis] for part in (module.kernel_size, module.stride, module.dilation))
    if isinstance(module.padding, str):
        return kernel, stride, {"valid": 0, "same": dilation * (kernel - 1) / 2}[module.padding], dilation
    return kernel, stride, _pair(module.padding)[axis], dilation


def _misfit(name: str, module: nn.Module, got: tuple[int, ...], layers: list[Layer], error: Exception) -> str:
    """Return which layer failed, the shape that it expected, the shape that it got, and where that came from."""
    source = f" from {layers[-1].network}.{layers[-1].layer} ({layers[-1].kind})" if layers else ""
    place, shape = f"{name} ({_kind(module)})", "x".join(map(str, got))
    if isinstance(module, nn.Linear) and got and got[-1] != module.in_features:
        return f"{place}: wants {module.in_features} numbers, got {shape}{source}"
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        if got and got[0] != module.in_channels:
            return f"{place}: wants {module.in_channels} channels, got {got[0]} (of {shape}){source}"
        formula = _sides(*(_size(module, axis, got[1 + axis]) for axis in (0, 1)))
        wants = "more pixels than it cuts"
        if isinstance(module, nn.Conv2d):
            numbers = [_numbers(module, axis) for axis in (0, 1)]
            least = [dilation * (kernel - 1) + 1 - 2 * padding for kernel, _, padding, dilation in numbers]
            wants = f"{least[0]:g}x{least[1]:g} pixels or more"
        return f"{place}: wants {wants}, got {shape}{source}; {formula}"
    return f"{place}: does not take {shape}{source}: {str(error).splitlines()[0][:120]}"
