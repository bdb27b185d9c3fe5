"""Searches on Ray: a private one, clusters whose machines are processes of this machine, and addresses."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool import __version__ as gantool_version
from gantool.devices import available_cores
from gantool.errors import ResourceError
from gantool.recipe import load as recipes
from gantool.training import engine, setup
from gantool.tune.cluster import connect, nodes
from gantool.tune.cluster.connect import Node, share
from gantool.tune.study import Study
from gantool.tune.trial import TrialConfig, run_trial
from gantool.tune.trials import TrialEnvironment
from optuna.trial import TrialState
from PIL import Image

from searches import DEADLINE, TYPED, Driver, gantool, made, rows

SEARCH = ("tune", "gan14", *TYPED, "--set", "tune.epochs=2", "--trials", "2", "--out", "s")


def test_a_search_on_a_private_ray(data_dir, tmp_path):
    place = tmp_path / ("x" * 90)  # too long for a socket in it
    place.mkdir()
    deep = f"model.discriminator={[16] * 13}"  # at the wild rate its scores overflow in the first steps
    changes = ("--set", deep, "--set", "data.size=14", "--set", "tune.space={train.optimizer.lr: [2e-4, 1000.0]}")
    command = (*SEARCH, *changes, "--trials", 5, "--device", "cpu", "--json", "--data-dir", data_dir)
    done = gantool(*command, folder=tmp_path, variables={"TMPDIR": str(place)})
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    started = [event["trial"] for event in events if event["event"] == "started"]
    assert started == ["0", "1", "2", "3", "4"], "one attempt each"
    assert (events[0]["event"], events[-1]["event"]) == ("begin", "end")
    found = rows(tmp_path / "s")
    wild = [row for row in found if row["train.optimizer.lr"] == "1000.0"]
    assert wild, found
    assert all(row["state"] == "fail" and re.search(" became (nan|inf)", row["why"]) for row in wild), wild
    assert {row["state"] for row in found if row not in wild} <= {"complete", "pruned"}
    assert not re.search(r"(?i)\bray\b|warning|tensorboard|traceback|optuna|\[I ", done.stderr)
    assert not (tmp_path / "s" / "ray").exists()
    again = gantool("tune", "s", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "5 of 5 trials done" in again.stderr
    assert "at once" not in again.stderr, "no Ray is started if nothing is left to do"


def test_if_no_cluster_runs_on_this_machine_the_error_says_how_to_start_one(data_dir, tmp_path):
    from ray._private.services import find_gcs_addresses

    before = find_gcs_addresses()
    done = gantool(*SEARCH, "--data-dir", data_dir, "--address", "auto", folder=tmp_path)
    if before or find_gcs_addresses():
        pytest.skip("a Ray cluster runs on this machine")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        6,
        "error: --address auto: no Ray cluster runs on this machine; start one with: ray start --head; or leave "
        "--address out",
    )
    assert not (tmp_path / "s").exists()


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one core; tests add machines to it, in the order of this file."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def card(cluster):
    """A second machine of two cores and a GPU that only Ray knows of."""
    return cluster.add_node(num_cpus=2, num_gpus=1)


def test_a_private_ray_does_not_disturb_another_cluster_of_the_machine(cluster, data_dir, tmp_path):
    before = {process.pid for group in cluster.head_node.live_processes() for process in group[1:]}
    variables = {"RAY_ADDRESS": cluster.address}  # as people have it who work with that cluster
    done = gantool(*SEARCH, "--device", "cpu", "--data-dir", data_dir, folder=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in rows(tmp_path / "s")} == {"complete"}
    assert {process.pid for group in cluster.head_node.live_processes() for process in group[1:]} == before
    assert connect._is_head(cluster.address)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")
def test_trials_share_a_gpu_of_ray_and_say_so_if_torch_cannot_use_it(cluster, card, data_dir, tmp_path):
    command = (*SEARCH, "--set", "tune.trials_per_gpu=2", "--data-dir", data_dir)
    done = gantool(*command, "--address", cluster.address, folder=tmp_path)
    assert "\n2 trials at once, 2 on each GPU: tune.trials_per_gpu 2\n" in done.stderr
    why = "--device cuda: not on this machine; here are: auto, cpu"
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: s: no trial finished; most often: {why}"
    assert [row["why"] for row in rows(tmp_path / "s")] == [why] * 2
    command = (*SEARCH, "--out", "other", "--data-dir", data_dir)
    done = gantool(*command, "--address", cluster.address, folder=tmp_path)
    assert done.returncode == 7, done.stderr
    message = r"error: \S+: its GPU cannot train the recipe \(.+\); with --device cpu trials do not use it\n$"
    assert re.search(message, done.stderr)
    assert not (tmp_path / "other").exists()


def test_a_machine_that_is_lost_loses_no_trial(cluster, card, data_dir, tmp_path):
    space = "tune.space={train.optimizer.lr: {low: 1e-4, high: 1e-3, log: true}}"  # none diverges
    settings = ("--set", "tune.epochs=150", "--set", "tune.pruner=none", "--set", space)
    command = (*SEARCH, *settings, "--trials", 3, "--device", "cpu")
    run = Driver(*command, "--data-dir", data_dir, "--address", cluster.address, folder=tmp_path)
    last = [tmp_path / "s" / "trials" / f"{number:04d}" / "checkpoints" / "last.pt" for number in range(3)]
    run.until(lambda: all(path.exists() for path in last))
    cluster.remove_node(card, allow_graceful=False)
    assert run.ended() == 0, run.output()
    assert "\n3 trials at once: one on each core\n" in run.output(), "--device cpu does not use the GPU"
    found = Study(tmp_path / "s").trials()
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3, run.output()
    assert sum(trial.user_attrs.get("resumed", 0) > 0 for trial in found) == 2, "two ran on the machine that is lost"
    assert "Traceback" not in run.output()


# Addresses


def test_an_address_at_which_no_ray_answers_is_refused_at_once(command, inside):
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:  # Ray itself would wait for it for minutes
        address = f"127.0.0.1:{server.getsockname()[1]}"
        silent = command(*SEARCH, "--address", address)
    closed = command(*SEARCH, "--address", address)
    assert time.monotonic() - start < 80
    assert [(code, err.splitlines()[-1]) for code, _, err in (silent, closed)] == [
        (
            6,
            f"error: --address {address}: is not the head of a Ray cluster; check the port that ray start --head "
            "printed, and set RAY_AUTH_MODE=token if the cluster asks for a token",
        ),
        (
            6,
            f"error: --address {address}: no answer (Connection refused); check the address, and that ray start --head "
            "ran",
        ),
    ]
    assert not Path("s").exists()


CLIENT = (
    "gantool does not use Ray's client; on a machine of the cluster use --address auto, or from outside: ray job "
    "submit --address http://HEAD:8265 -- gantool tune RECIPE --address auto"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[
            (("--address", address), f"--address {address}: expected local, auto or HOST:PORT")
            for address in ("head", "head:", ":6379", "head:port", "head:65536")
        ],
        (("--address", "ray://127.0.0.1:10001"), f"--address ray://127.0.0.1:10001: {CLIENT}"),
        (
            ("--address", "auto", "--engine", "inline"),
            "--address auto: --engine inline runs in this process; leave one of them out",
        ),
        (("--device", "mps"), "--device mps: workers know auto, cpu and cuda; use --engine inline for others"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(arguments, message, inside, command):
    code, _, err = command(*SEARCH, *arguments)
    assert (code, err.splitlines()[-1]) == (2, f"error: {message}")
    assert not Path("s").exists()


# Data and slots


def test_data_that_only_this_machine_sees_are_copied_into_the_study_and_used_there(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (14, 14), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    changes = {"data.source": str(tmp_path / "photos"), "model.generator": [16], "model.discriminator": [16]}
    more = {"train.evaluate_images": 64, "train.extractors": ["rand", "pretext"], "train.epochs": 2}
    recipe = engine.open_recipe("gan14", {**changes, **more})
    own = tmp_path / "own"
    store = setup.prepare_training(recipe, own).store.path

    def extractors(folder):
        return {file.name for file in (folder / "extractors").iterdir() if file.name[0] != "."}

    learned = extractors(own)
    assert learned
    (tmp_path / "s").mkdir()
    study = Study.create(tmp_path / "s", recipe)
    place = nodes.copied(study, TrialEnvironment(own, str(store), "cpu"))
    assert place.data_dir == study.path / "data"
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "photos")
    config = TrialConfig("0", recipes.dump(recipe), str(study.folder(0)), str(place.data_dir), place.store)
    *_, last = run_trial(config, lambda: False)
    assert last.state == "finished", last
    assert extractors(place.data_dir) == learned, "none is learned again"
    assert not own.exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (("0.0.1", True, True), "second: has gantool 0.0.1, but this is "),
        (("own", False, True), r"second: does not see .*s; name a directory with --out that all machines share$"),
        (
            ModuleNotFoundError("No module named 'gantool'"),
            r"second: cannot run gantool \(No module named 'gantool'\); install",
        ),
    ],
)
def test_a_machine_without_the_study_or_this_gantool_is_named_before_the_first_trial(
    answer, message, tmp_path, monkeypatch
):
    def there(node, gpus, task, *arguments):
        if node.name == "first":
            return task(*arguments)
        if isinstance(answer, Exception):
            raise answer
        version, *sees = answer
        return gantool_version if version == "own" else version, *sees

    monkeypatch.setattr(nodes, "_on", there)
    study, machines = made(tmp_path / "s"), [Node(name, name, 1, 0) for name in ("first", "second")]
    with pytest.raises(ResourceError, match=message):
        nodes.check_nodes(machines, study, TrialEnvironment(tmp_path, "", "cpu"))


def slots(nodes, settings, need=None):
    device = settings.pop("device", "auto")
    machines = [Node(str(index), "host", cpus, gpus) for index, (cpus, gpus) in enumerate(nodes)]
    tune = engine.open_recipe("gan14", {f"tune.{key}": value for key, value in settings.items()}).tune
    return share(machines, tune, device, need)


@pytest.mark.parametrize(
    ("nodes", "settings", "need", "expected", "sentence"),
    [
        ([(2, 0)], {}, None, (2, 1, 0), "2 trials at once: one on each core"),
        ([(8, 0)], {"cpus_per_trial": 3}, None, (2, 3, 0), "2 trials at once: 3 cores each"),
        ([(8, 0)], {"parallel": 1}, None, (1, 1, 0), "1 trial at once: tune.parallel 1"),
        ([(8, 0)], {"trials_per_gpu": 2}, None, (8, 1, 0), "8 trials at once: one on each core"),
        ([(4, 2)], {"device": "cpu"}, None, (4, 1, 0), "4 trials at once: one on each core"),
        (
            *([(16, 1)], {}, (2e9, 141e9), (16, 1, 1 / 16)),
            "16 trials at once, 16 on each GPU: as many as a GPU has cores (16); a trial takes 2.0 of 141 GB",
        ),
        (
            *([(16, 1)], {}, (3e9, 12e9), (3, 1, 1 / 3)),
            "3 trials at once, 3 on each GPU: a trial takes 3.0 of 12 GB",
        ),
        ([(16, 2)], {}, (20e9, 12e9), (2, 1, 1), "2 trials at once, 1 on each GPU: a trial takes 20.0 of 12 GB"),
        (
            *([(16, 2)], {"trials_per_gpu": 2}, None, (4, 1, 0.5)),
            "4 trials at once, 2 on each GPU: tune.trials_per_gpu 2",
        ),
        (
            *([(1, 1), (31, 0)], {"trials_per_gpu": 4}, None, (1, 1, 0.25)),
            "1 trial at once, 4 on each GPU: tune.trials_per_gpu 4",
        ),
    ],
)
def test_trials_are_counted_node_by_node(nodes, settings, need, expected, sentence):
    found = slots(nodes, settings, need=need)
    assert (found.count, found.cpus, found.gpus) == pytest.approx(expected)
    assert found.sentence() == sentence


FEW = "tune.cpus_per_trial: 5 cores on one machine, but the largest has 4; ask for fewer"
BESIDE = "tune.cpus_per_trial: 4 cores beside a GPU, but no machine with a GPU has as many"


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        ([(4, 0), (2, 0)], {"cpus_per_trial": 5}, FEW),
        ([(4, 0)], {"device": "cuda"}, "--device cuda: no machine of this Ray has a GPU; leave it out"),
        ([(2, 1), (8, 0)], {"cpus_per_trial": 4}, BESIDE),
    ],
)
def test_trials_that_no_machine_can_run_are_refused(nodes, settings, message):
    with pytest.raises(ResourceError, match=message):
        slots(nodes, settings)


# A Ray that only gantool uses


def test_its_folder_is_private_its_token_is_random_and_nothing_remains():
    tokens, before = [], os.environ.get("RAY_AUTH_TOKEN")
    for _ in range(2):
        with connect._private() as options:
            folder = Path(options["_temp_dir"]).parent
            if os.name == "posix":
                assert folder.stat().st_mode & 0o777 == 0o700
            assert options["num_cpus"] == available_cores()
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert not folder.exists()
        assert os.environ.get("RAY_AUTH_TOKEN") == before
    assert len(set(tokens)) == 2
    assert min(map(len, tokens)) == 64


PRIVATE = """
import os, pathlib, subprocess, sys, time
from gantool.tune.cluster import connect

JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('joined')"


def stranger():
    os.setgid(65534)
    os.setuid(65534)


def processes(session):
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        command = (process / "cmdline").read_bytes().decode(errors="replace")
        if int(process.name) == os.getpid() or session in command:
            yield process, command


with connect.connected("local") as nodes:
    import ray

    place = pathlib.Path(ray._private.worker._global_node.get_session_dir_path())
    print("node", nodes[0].name)
    sockets = set()
    for process, command in processes(place.name):
        print("process", *(part for part in command.split(chr(0)) if part.endswith("dashboard.py")))
        sockets |= {os.readlink(file) for file in (process / "fd").iterdir() if file.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                print("listens", fields[1].partition(":")[0])
    if os.geteuid() == 0:
        listed = subprocess.run(["ls", place], preexec_fn=stranger, capture_output=True, cwd="/")
        print("lists", listed.returncode)
    address = ray.get_runtime_context().gcs_address
    tries = []
    for mode, token in (("token", os.environ["RAY_AUTH_TOKEN"]), ("disabled", ""), ("token", "0" * 64)):
        variables = os.environ | {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-c", JOIN, address]
        tries.append(subprocess.Popen(command, env=variables, stdout=-1, stderr=subprocess.DEVNULL, text=True))
    tries[0].wait()
    time.sleep(1)
    for one in tries:  # those without the token try for half a minute
        one.kill()
        print("joins", one.communicate()[0].strip() or "no")
"""


@pytest.fixture(scope="module")
def private():
    """What a process found of a private Ray that it started: pairs of a kind and a value."""
    done = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return [line.partition(" ")[::2] for line in done.stdout.splitlines()]


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")


@needs_proc
def test_all_its_processes_listen_only_on_the_loopback_and_none_is_a_dashboard(private):
    assert ("node", "127.0.0.1") in private
    places = [place for kind, place in private if kind == "listens"]
    assert len(places) >= 3, "the GCS server, the raylet and the driver"
    assert set(places) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    found = [name for kind, name in private if kind == "process"]
    assert len(found) >= 3
    assert not any(found)


@needs_proc
def test_without_its_token_nobody_joins_it_and_other_users_cannot_list_its_folder(private):
    assert [answer for kind, answer in private if kind == "joins"] == ["joined", "no", "no"]
    assert [code for kind, code in private if kind == "lists"] in ([], ["2"])


def test_if_no_folder_is_short_enough_the_message_names_a_way(monkeypatch):
    monkeypatch.setattr(connect, "MAX_FOLDER_LENGTH", 0)
    with pytest.raises(ResourceError) as caught, connect._private():
        pass
    message = str(caught.value)
    assert message.startswith("Ray needs a folder for its sockets, with a path of at most 0 letters: ")
    assert message.endswith("; set TMPDIR to one, or use --engine inline")
