"""The conditional DCGAN: where its networks see the class."""

from __future__ import annotations

import torch
from gantool.batches import ImageSpec
from gantool.models import losses
from gantool.models.cdcgan import CDCGAN


def cdcgan(data, **networks):
    return CDCGAN(data, losses.find_loss("non_saturating")(), latent_dim=3, embedding_dim=4, **networks)


def test_the_discriminator_sees_the_class_as_one_more_channel_and_the_generator_beside_its_latent():
    data = ImageSpec(3, 8, 12, ("a", "b"))  # sides need not be equal
    model = cdcgan(data, generator=[[8, 4, 1, 0], [3, 2, 2, 0]], discriminator=[[1, 8, 1, 0]])
    seen = []
    for network in (model.discriminator, model.generator):
        network.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    images, latents, labels = torch.rand(2, 3, 8, 12), torch.randn(2, 3), torch.tensor([1, 0])
    model.discriminator(images, labels)
    model.generator(latents, labels)
    channels, beside = (network.embedding.weight.detach()[labels] for network in (model.discriminator, model.generator))
    assert torch.equal(seen[0], torch.cat([images, channels.view(2, 1, 8, 12)], dim=1))
    assert torch.equal(seen[1], torch.cat([latents, beside], dim=1))
