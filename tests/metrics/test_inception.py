"""The network of the Fréchet Inception distance, with weights of our own: no test downloads the real ones."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys

import pytest
import torch
from gantool.data.sources import catalog
from gantool.metrics import inception
from gantool.metrics.inception import Inception

from refusals import refusal
from stores import no_random_numbers

library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
FOUND = "delete it and run: gantool data fetch inception"


def written(root, content):
    path = root / "inception" / catalog.INCEPTION_WEIGHTS.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def weights():
    """A weights file of the right shapes, 96 MB, whose random numbers keep the size of activations."""
    state, empty = torch.get_rng_state(), io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = library.FeatureExtractorInceptionV3("random", ["2048"], empty)
        torch.set_rng_state(state)
    file = io.BytesIO()
    torch.save(
        {name: value * 6**0.5 if value.dim() == 4 else value for name, value in network.state_dict().items()}, file
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def opened(weights, tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    written(root, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "INCEPTION_HASH", hashlib.sha256(weights).hexdigest())
        with no_random_numbers():
            return Inception.open(root)


def test_the_weights_are_those_of_other_implementations():
    (url,) = catalog.INCEPTION_WEIGHTS.urls
    assert url.endswith(f"/{catalog.INCEPTION_WEIGHTS.name}")
    assert catalog.INCEPTION_HASH.startswith("6726825d")


def test_an_image_has_the_2048_features_of_torch_fidelity_for_its_8_bits(opened, weights, monkeypatch):
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = opened(images)
    (wanted,) = opened.network(((images + 1) * 127.5).round().to(torch.uint8))

    assert made.shape == (3, 2048)
    assert made.dtype == torch.float32
    assert float(wanted.std(0).mean()) > 1e-3
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    assert opened.identity == f"inception-{hashlib.sha256(weights).hexdigest()[:12]}"
    grey = images[:1, :1]
    assert torch.equal(opened(grey), opened(grey.repeat(1, 3, 1, 1)))
    monkeypatch.setattr(inception, "CHUNK", 2)
    torch.testing.assert_close(opened(images), made, rtol=1e-4, atol=1e-5)


def test_a_missing_library_and_a_missing_or_unreadable_file_are_reported(tmp_path, monkeypatch):
    path = tmp_path / "inception" / catalog.INCEPTION_WEIGHTS.name
    message = f"{path}: no such file; download it (96 MB) with: gantool data fetch inception"
    assert refusal(Inception.open, tmp_path) == message
    path.mkdir(parents=True)
    assert re.search(
        r": cannot be read \((Is a directory|Permission denied)\); check", refusal(Inception.open, tmp_path)
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    message = "inception: needs torch-fidelity; install it with: pip install 'gantool[inception]'"
    assert refusal(Inception.open, tmp_path, code=2) == message


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


def test_another_file_is_refused_before_anything_unpickles_it(tmp_path):
    bomb, canary = pickle.dumps(Bomb(tmp_path / "canary")), tmp_path / "canary"
    path = written(tmp_path, bomb)
    message = f"{path}: has SHA-256 {hashlib.sha256(bomb).hexdigest()[:8]} instead of 6726825d; {FOUND}"
    assert refusal(Inception.open, tmp_path) == message
    assert not canary.exists()
    pickle.loads(bomb).close()
    assert canary.exists(), "the bomb is a dud"
