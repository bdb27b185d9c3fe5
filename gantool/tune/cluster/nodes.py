"""Checks of the machines of a cluster before a search: the study's files, gantool's version, a GPU's memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gantool
from gantool import models
from gantool.data.store import open_store
from gantool.errors import GantoolError, ResourceError
from gantool.files import copy, copy_folder, make_folder
from gantool.recipe import load as recipes
from gantool.runs import STUDY
from gantool.training.setup import prepare_training
from gantool.tune.cluster.connect import Node
from gantool.tune.study import Study
from gantool.tune.trials import TrialEnvironment

PROBE_STEPS = 3  # of training, after which a trial needs no more memory
CUDA_CONTEXT_BYTES = 700e6  # bytes of a GPU that torch's libraries take in each process, beside its tensors


def check_nodes(nodes: list[Node], study: Study, environment: TrialEnvironment) -> TrialEnvironment:
    """Return where every machine of the cluster finds the data: in the data directory, or in a copy in the study.

    Raises:
        ResourceError: a machine does not see the study's directory, or has another gantool, or none.
    """
    all_see_data = True
    for node in nodes if len(nodes) > 1 else []:
        try:
            version, sees_study, sees_data = _on(node, 0, _look, str(study.path / STUDY), environment.store)
        except Exception as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ResourceError(
                f"{node.name}: cannot run gantool ({problem}); install gantool {gantool.__version__} on every machine"
            ) from None
        if version != gantool.__version__:
            raise ResourceError(
                f"{node.name}: has gantool {version}, but this is {gantool.__version__}; install the same on both"
            )
        if not sees_study:
            raise ResourceError(
                f"{node.name}: does not see {study.path}; name a directory with --out that all machines share"
            )
        all_see_data = all_see_data and sees_data
    return environment if all_see_data else copied(study, environment)


def memory(nodes: list[Node], study: Study, environment: TrialEnvironment) -> tuple[int, int] | None:
    """Measure the bytes of a GPU that the largest trial takes, and those of the GPU; None if they are not needed.

    Raises:
        ResourceError: torch cannot use the GPU that Ray has counted.
    """
    cards = [node for node in nodes if node.gpus]
    if not cards or environment.device == "cpu" or study.tune.trials_per_gpu:
        return None
    largest = []
    with contextlib.suppress(GantoolError):  # not all upper ends fit together
        largest = [study.space.largest()]
    problem = ""
    for recipe in [*largest, study.recipe]:
        task = (_try_to_train, recipes.dump(recipe), str(environment.data_dir), environment.store)
        taken, total, problem = _on(cards[0], 1, *task)
        if not problem:
            return taken, total
    raise ResourceError(
        f"{cards[0].name}: its GPU cannot train the recipe ({problem}); with --device cpu trials do not use it"
    )


def _on(node: Node, gpus: int, task: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on one machine of the cluster."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    options = {"num_cpus": 0, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": there}
    return ray.get(ray.remote(task).options(**options).remote(*arguments))


def _look(study: str, store: str) -> tuple[str, bool, bool]:
    return gantool.__version__, Path(study).is_file(), not store or Path(store, "about.json").is_file()


def copied(study: Study, environment: TrialEnvironment) -> TrialEnvironment:
    """Copy the decoded data and the learned extractors into the study, which all machines see."""
    store, target = Path(environment.store), study.path / "data"
    make_folder(target / "stores")
    make_folder(target / "extractors")
    if not (target / "stores" / store.name).exists():
        copy_folder(store, target / "stores" / store.name)
    for file in (environment.data_dir / "extractors").glob(f"[!.]*{store.name}*"):
        copy(file, target / "extractors" / file.name)
    return replace(environment, data_dir=target, store=str(target / "stores" / store.name))


def _try_to_train(text: str, data_dir: str, store: str) -> tuple[int, int, str]:
    """Return the bytes of this process's GPU that training takes, and those of the GPU; or why it fails."""
    import torch

    from gantool.training.trainer import Trainer

    try:
        recipe = recipes.parse(text, "the largest trial", models.KINDS)
        data = (open_store(Path(store)) if store else None) or prepare_training(recipe, Path(data_dir)).store
        device = torch.device("cuda")
        model = models.build(recipe, data.spec).to(device)
        trainer = Trainer(model, recipe.train, device)
        blank = model.blank(recipe.train.batch_size)
        batch = type(blank)(*(part.to(device) for part in blank))
        for _ in range(PROBE_STEPS):
            trainer.step(batch)
        torch.cuda.synchronize()
        total = torch.cuda.get_device_properties(device).total_memory
        return int(torch.cuda.max_memory_reserved() + CUDA_CONTEXT_BYTES), total, ""
    except Exception as error:
        return 0, 0, (str(error).strip().splitlines() or [type(error).__name__])[0]
