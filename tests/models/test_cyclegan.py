"""CycleGAN: the published networks and game, and the history of fake images."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from gantool.batches import ImageSpec, Unpaired
from gantool.errors import RecipeError
from gantool.models import losses
from gantool.models.base import GeneratorInput
from gantool.models.cyclegan import CycleGAN, History, Residual, ResNet
from torch import nn

SPEC = ImageSpec(3, 16, 16, ("a", "b"))
LEAST_SQUARES = losses.find_loss("least_squares")()


def cyclegan(data=SPEC, loss=LEAST_SQUARES, **settings):
    torch.manual_seed(0)
    small = {"width": 2, "blocks": 1, "history": 3, "discriminator_width": 2, "discriminator_layers": 1}
    return CycleGAN(data, loss, **{**small, **settings})


def images(count, seed=0, shape=SPEC.shape):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def translated(model, source, labels):
    with torch.no_grad():
        return model.sample(GeneratorInput(source, torch.tensor(labels), torch.arange(len(source))))


@pytest.mark.parametrize(("size", "blocks"), [(128, 6), (256, 9)])
def test_a_generator_has_as_many_residual_blocks_as_the_paper_for_the_size(size, blocks):
    with torch.device("meta"):
        model = CycleGAN(ImageSpec(3, size, size), LEAST_SQUARES, width=1)
    assert all(sum(isinstance(layer, Residual) for layer in way) == blocks for way in model.generator.values())


def test_a_resnet_is_the_papers():
    way = ResNet(3, width=4, blocks=2)
    kinds = "ReflectionPad2d Conv2d InstanceNorm2d ReLU " + 2 * "Conv2d InstanceNorm2d ReLU " + 2 * "Residual "
    kinds += 2 * "ConvTranspose2d InstanceNorm2d ReLU " + "ReflectionPad2d Conv2d Tanh"
    assert [type(layer).__name__ for layer in way] == kinds.split()
    outer = [layer for layer in way if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in outer] == [
        *((4, 7, 1), (8, 3, 2), (16, 3, 2)),
        *((8, 3, 2), (4, 3, 2), (3, 7, 1)),
    ]
    assert not any(isinstance(layer, nn.InstanceNorm2d) and layer.affine for layer in way.modules())
    block = Residual(2)
    image = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(block(image), image + block.layers(image))


def test_sizes_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(RecipeError, match=r"^data.size: cyclegan halves an image twice, .* try 8$"):
        cyclegan(ImageSpec(3, 2, 2))


def test_cyclegan_plays_the_papers_game():
    model = cyclegan(adversarial=2.0, cycle=7.0, identity=0.5, history=0).double()
    a, b = images(2).double(), images(2, seed=1).double()
    to_a, to_b = model.generator["b_to_a"], model.generator["a_to_b"]
    fake_a, fake_b = to_a(b), to_b(a)
    game = model.play(Unpaired(a, b))
    first = next(game)
    assert first.player is model.generator
    assert not first.scores
    wanted = {
        "adversarial_a": (model.discriminator["a"](fake_a) - 1).square().mean(),
        "adversarial_b": (model.discriminator["b"](fake_b) - 1).square().mean(),
        "cycle_a": 7 * (to_a(fake_b) - a).abs().mean(),
        "cycle_b": 7 * (to_b(fake_a) - b).abs().mean(),
        "identity_a": 3.5 * (to_a(a) - a).abs().mean(),
        "identity_b": 3.5 * (to_b(b) - b).abs().mean(),
    }
    assert first.losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(first.losses[name], value, msg=name)

    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.zero_()
    second = next(game)
    assert second.player is model.discriminator
    assert second.losses.keys() == {"adversarial_a", "adversarial_b"}
    for kind, real, fake in (("a", a, fake_a), ("b", b, fake_b)):  # fake images of before the generators' turn
        logits = model.discriminator[kind](real), model.discriminator[kind](fake)
        wanted = 0.5 * (logits[0] - 1).square().mean() + 0.5 * logits[1].square().mean()
        torch.testing.assert_close(second.losses[f"adversarial_{kind}"], wanted)
    means = [model.discriminator[kind](real).mean().detach() for kind, real in (("a", a), ("b", b))]
    torch.testing.assert_close(second.scores["real"], sum(means) / 2)
    assert next(game, None) is None


def test_without_identity_nothing_is_computed_for_it():
    model, passes = cyclegan(identity=0.0), []
    for way in model.generator.values():
        way.register_forward_hook(lambda *_: passes.append(1))
    first = next(model.play(Unpaired(images(1), images(1, seed=1))))
    assert len(passes) == 4
    assert first.losses.keys() == {"adversarial_a", "adversarial_b", "cycle_a", "cycle_b"}


class Painter(nn.Module):
    """Makes every image one colour."""

    def __init__(self, colour):
        super().__init__()
        self.forward = lambda images: torch.full_like(images, colour)


def test_a_label_is_the_kind_of_the_translation():
    model = cyclegan()
    model.generator = nn.ModuleDict({"a_to_b": Painter(1.0), "b_to_a": Painter(-1.0)})
    assert translated(model, images(5), [1, 0, 0, 1, 1]).mean((1, 2, 3)).tolist() == [1, -1, -1, 1, 1]
    assert translated(model, images(5), [0] * 5).mean((1, 2, 3)).tolist() == [-1] * 5


# History


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def test_a_history_returns_and_keeps_images_until_it_is_full_also_within_a_batch():
    history = History(3, (1, 2, 2))
    shown = history(numbered(1, 2, 3, 4, 5))
    assert shown[:3, 0, 0, 0].tolist() == [1, 2, 3]
    everything = torch.cat([shown, history.images])[:, 0, 0, 0].tolist()
    assert sorted(everything) == [1, 1, 2, 2, 3, 3, 4, 5]  # the first three were returned and kept
    assert int(history.filled) == 3
    assert torch.equal(History(0, (1, 2, 2))(numbered(1, 2)), numbered(1, 2))


def test_a_full_history_exchanges_one_image_in_two():
    torch.manual_seed(0)
    history = History(10, (1, 2, 2))
    history(numbered(*range(10)))
    given, shown = list(range(10, 3010)), []
    for start in range(0, 3000, 100):
        shown += history(numbered(*given[start : start + 100]))[:, 0, 0, 0].tolist()
    pairs = list(zip(given, shown, strict=True))
    assert sum(one == other for one, other in pairs) / len(given) == pytest.approx(0.5, abs=0.03)
    # Nothing is lost or doubled: images that were not returned at once came later, or are still kept.
    assert sorted(shown + history.images[:, 0, 0, 0].tolist()) == list(range(3010))
    waited = [number - one for number, one in pairs if number != one]
    assert sum(waited) / len(waited) == pytest.approx(2 * 10, rel=0.15)  # a place is emptied once in 20 images


def test_images_from_a_history_are_not_changed_later_and_are_no_weights():
    history = History(2, (1, 2, 2))
    shown = [history(numbered(number)) for number in range(50)]
    kept = deepcopy(shown)
    for number in range(50, 100):
        history(numbered(number))
    assert all(torch.equal(one, other) for one, other in zip(shown, kept, strict=True))
    assert not history.state_dict()
