"""The features of the Fréchet Inception distance, for numbers that compare with those of papers."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantool.data.sources.catalog import INCEPTION_FOLDER, INCEPTION_HASH, INCEPTION_WEIGHTS
from gantool.devices import rng_scope, rng_states
from gantool.errors import DataError, GantoolError
from gantool.images import to_uint8

CHUNK = 32  # images computed at a time; they are 299x299 inside the network


@dataclass(frozen=True, eq=False)
class Inception:
    """`inception`: the 2048 features of Inception-v3 before its classes. Heusel et al. 2017, arXiv:1706.08500, sec. 3.

    torch-fidelity's network has the TensorFlow weights of 2015-12-05 and TensorFlow's resizing to 299x299. It takes
    about 0.2 s an image on one core. For `identity` see `Extractor`.
    """

    network: Any
    identity: str

    @classmethod
    def open(cls, root: Path) -> Inception:
        """Read the weights below the data directory `root`, without downloading them.

        Raises:
            GantoolError: torch-fidelity is not installed.
            DataError: the file is missing, cannot be read, or is another one.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise GantoolError(
                "inception: needs torch-fidelity; install it with: pip install 'gantool[inception]'"
            ) from None
        path = root / INCEPTION_FOLDER / INCEPTION_WEIGHTS.name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; download it (96 MB) with: gantool data fetch inception") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
        found = hashlib.sha256(content).hexdigest()
        if found != INCEPTION_HASH:
            raise DataError(
                f"{path}: has SHA-256 {found[:8]} instead of {INCEPTION_HASH[:8]}; "
                "delete it and run: gantool data fetch inception"
            )
        cpu = torch.device("cpu")
        with rng_scope(cpu, rng_states(cpu, 0)):  # its random weights are replaced by those of the file
            # torch-fidelity reads them with `weights_only=False`, which runs the code that a file holds. These are the
            # bytes that were just compared with the SHA-256 of the published file, not the file read again.
            network = FeatureExtractorInceptionV3("inception", ["2048"], io.BytesIO(content))
        return cls(network, f"inception-{found[:12]}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images: [N, C, H, W], -1 to 1, grey or colour -> [N, 2048], float32, on the CPU.

        They are computed on the images' device, from the 8 bits that would be written.
        """
        network = self.network.to(images.device)
        pixels = to_uint8(images).to(images.device).expand(-1, 3, -1, -1)
        return torch.cat([network(chunk)[0].cpu() for chunk in torch.split(pixels, CHUNK)])
