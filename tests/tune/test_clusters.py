"""Searches on Ray clusters that somebody else began: real ones on this machine, whose machines are its processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool.cli import main
from gantool.devices import available_cores
from gantool.errors import ResourceError
from gantool.recipe import load as recipes
from gantool.training import engine, setup
from gantool.tune.cluster import connect as clusters
from gantool.tune.cluster import nodes
from gantool.tune.study import Study
from gantool.tune.trial import run_trial
from gantool.tune.trials import TrialEnvironment
from optuna.trial import TrialState
from PIL import Image
from test_interrupts import SEARCH, Driver, checkpoint, epochs_done
from test_searches import TINY, environment, gantool, table, trials

SHORT = (*TINY, "--trials", "2", "--out", "s")
SEARCHED = ("tune", "gan14", *TINY, "--trials", "2", "--out", "unmeasured")


def test_the_cluster_of_this_machine_is_missed_where_there_is_none(data_dir, tmp_path):
    from ray._private.services import find_gcs_addresses

    if find_gcs_addresses():
        pytest.skip("a Ray cluster runs on this machine")
    command = ("tune", "gan14", *SHORT, "--data-dir", str(data_dir), "--address", "auto")
    done = gantool(*command, folder=tmp_path)
    if find_gcs_addresses():
        pytest.skip("a Ray cluster began on this machine meanwhile")
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
    """A second machine of two cores and a GPU that Ray is told of; torch sees none."""
    return cluster.add_node(num_cpus=2, num_gpus=1)


def test_what_a_cluster_cannot_run_is_refused_at_once(cluster, data_dir, tmp_path):
    command = ("tune", "gan14", *SHORT, "--data-dir", str(data_dir), "--address", cluster.address)
    start = time.monotonic()
    done = gantool(*command, "--device", "cuda", folder=tmp_path)
    said = "error: --device cuda: no machine of this Ray has a GPU; leave it out"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (7, said)
    assert time.monotonic() - start < 120
    assert not (tmp_path / "s").exists()


def test_a_search_of_its_own_leaves_another_cluster_of_the_machine_alone(cluster, data_dir, tmp_path):
    before = {process.pid for group in cluster.head_node.live_processes() for process in group[1:]}
    done = subprocess.run(
        [sys.executable, "-m", "gantool", "tune", "gan14", *SHORT, "--device", "cpu", "--data-dir", str(data_dir)],
        cwd=tmp_path,
        env=environment() | {"RAY_ADDRESS": cluster.address},  # as somebody has it who works with that cluster
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in table(tmp_path / "s")} == {"complete"}
    assert {process.pid for group in cluster.head_node.live_processes() for process in group[1:]} == before
    assert clusters._is_head(cluster.address)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")
def test_trials_share_a_gpu_that_ray_has_and_say_honestly_where_torch_has_none(cluster, card, data_dir, tmp_path):
    command = ("tune", "gan14", *SHORT, "--set", "tune.trials_per_gpu=2", "--data-dir", str(data_dir))
    done = gantool(*command, "--address", cluster.address, folder=tmp_path)
    assert "\n2 trials at once, 2 on each GPU: tune.trials_per_gpu 2\n" in done.stderr
    why = "--device cuda: not on this machine; here are: auto, cpu"
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: s: no trial finished; most often: {why}"
    assert [row["why"] for row in table(tmp_path / "s")] == [why] * 2
    unmeasured = gantool(*SEARCHED, "--data-dir", str(data_dir), "--address", cluster.address, folder=tmp_path)
    assert unmeasured.returncode == 7, unmeasured.stderr
    assert re.search(
        r"error: \S+: its GPU cannot train the recipe \(.+\); --device cpu leaves it alone\n$", unmeasured.stderr
    )
    assert not (tmp_path / "unmeasured").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_a_trial_takes_of_its_memory_decides_how_many_share_it(data_dir, tmp_path):
    done = gantool(*SEARCHED, "--data-dir", str(data_dir), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"trials? at once, \d+ on each GPU: .*a trial takes \d+\.\d of \d+ GB", done.stderr)


def test_a_machine_that_is_lost_loses_no_trial(cluster, card, data_dir, tmp_path):
    study = tmp_path / "s"
    command = ("tune", "gan14", *SEARCH, "--set", "tune.epochs=100", "--trials", "3", "--data-dir", str(data_dir))
    run = Driver(*command, "--address", cluster.address, folder=tmp_path)
    run.until(lambda: all(checkpoint(study, number).exists() for number in (0, 1, 2)))
    cluster.remove_node(card, allow_graceful=False)
    done = epochs_done(study)
    assert run.ended() == 0, run.said()
    said = run.said()
    assert "\n3 trials at once: one on each core\n" in said, "where the CPU is asked for, GPUs are left alone"
    found = trials(study)
    assert len(found) == 3
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED}, said
    again = [trial for trial in found if trial.user_attrs.get("resumed", 0) > 0]
    assert len(again) == 2, "two ran on the machine that is gone"
    assert all(trial.user_attrs["resumed"] >= done[trial.number] > 0 for trial in again)
    assert "Traceback" not in said


def refused(capfd, *arguments: str) -> tuple[int, str]:
    """Run the command line in this process; give the exit code and the last line of what it said."""
    with pytest.raises(SystemExit) as stop:
        main(["tune", "gan14", *TINY, *arguments])
    return stop.value.code, capfd.readouterr().err.splitlines()[-1]


def test_an_address_at_which_nobody_listens_is_one_line_at_once(data_dir, inside, capfd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free once this is closed
    start = time.monotonic()
    code, said = refused(capfd, "--address", f"127.0.0.1:{port}", "--data-dir", str(data_dir), "--out", "s")
    assert time.monotonic() - start < 20
    assert code == 6
    assert said == (
        f"error: --address 127.0.0.1:{port}: nobody answers there (Connection refused); check the address, and that "
        "ray start --head ran"
    )
    assert not Path("s").exists()


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a server that accepts whoever comes, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:  # closed
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in accepted:
            one.close()


def test_a_server_that_is_no_ray_is_refused_before_ray_waits_for_minutes(stranger, data_dir, inside, capfd):
    start = time.monotonic()
    code, said = refused(capfd, "--address", stranger, "--data-dir", str(data_dir), "--out", "s")
    assert time.monotonic() - start < 60
    assert code == 6
    assert said == (
        f"error: --address {stranger}: what answers there is no head of a Ray cluster; check the port, which ray start "
        "--head has named, and set RAY_AUTH_MODE=token if the cluster asks for a token"
    )
    assert not Path("s").exists()


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:65536", ""])
def test_a_malformed_address_is_refused_with_the_forms_that_there_are(address, data_dir, inside, capfd):
    more = ("--out", str(inside / "s"), "--data-dir", str(data_dir))
    assert refused(capfd, "--address", address, *more) == (
        2,
        f"error: --address {address}: expected local, auto or HOST:PORT",
    )


def test_rays_client_is_refused_with_what_works_in_its_place(data_dir, inside, capfd):
    more = ("--out", str(inside / "s"), "--data-dir", str(data_dir))
    assert refused(capfd, "--address", "ray://127.0.0.1:10001", *more) == (
        2,
        "error: --address ray://127.0.0.1:10001: gantool does not use Ray's client; on a machine of the cluster use "
        "--address auto, or from outside: ray job submit --address http://HEAD:8265 -- gantool tune RECIPE --address "
        "auto",
    )
    assert not (inside / "s").exists()


def test_data_that_only_the_driver_sees_are_copied_into_the_study_and_trained_on_there(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(60):
        picture = np.random.default_rng(number).integers(0, 256, (14, 14), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    changes = {"data.source": str(tmp_path / "photos"), "model.generator": [16], "model.discriminator": [16]}
    more = {"train.evaluate_images": 64, "train.extractors": ["rand", "pretext"], "train.epochs": 2}
    recipe = engine.open_recipe("gan14", {**changes, **more})
    own = tmp_path / "own"
    store = setup.prepare_training(recipe, own).store.path
    learned = names(own / "extractors")
    assert learned
    (tmp_path / "s").mkdir()
    study = Study.create(tmp_path / "s", recipe)
    place = nodes._copied(study, TrialEnvironment(own, str(store), "cpu"))
    assert place.data_dir == study.path / "data"
    assert names(place.data_dir / "extractors") == learned
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "photos")
    config = {
        "label": "0",
        "recipe": recipes.dump(recipe),
        "folder": str(study.folder(0)),
        "data_dir": str(place.data_dir),
        "store": place.store,
        "device": "cpu",
        "keep_end": False,
        "judged": False,
    }
    told = list(run_trial(config, lambda: False))
    assert "why" not in told[-1], told
    assert told[-1]["finished"]
    assert names(place.data_dir / "extractors") == learned, "none is learned again"
    assert not own.exists()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.name[0] != "."}


# The Ray that gantool starts itself


def test_its_folder_is_its_owners_alone_its_token_is_random_and_nothing_of_it_is_left():
    tokens = set()
    before = os.environ.get("RAY_AUTH_TOKEN")
    for _ in range(2):
        with clusters._private() as options:
            folder = Path(options["_temp_dir"]).parent
            assert folder.is_dir()
            if os.name == "posix":
                assert folder.stat().st_mode & 0o777 == 0o700
            assert options["num_cpus"] == available_cores()
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert not folder.exists()
        assert os.environ.get("RAY_AUTH_TOKEN") == before
    assert len(tokens) == 2
    assert min(map(len, tokens)) == 64


LISTENING = """
import os, pathlib
from gantool.tune.cluster import connect

with connect.connected("local") as nodes:
    session = os.path.basename(__import__("ray")._private.worker._global_node.get_session_dir_path())
    print("node", nodes[0].name)
    sockets = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid() or session in (process / "cmdline").read_bytes().decode(errors="replace"):
            sockets |= {os.readlink(file) for file in (process / "fd").iterdir() if file.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                print("listens", fields[1].partition(":")[0])
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_all_of_it_listens_on_the_loopback_alone():
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert ["node", "127.0.0.1"] in told
    places = [place for what, place in told if what == "listens"]
    assert len(places) >= 3, "the GCS server, the raylet and the driver"
    assert set(places) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_where_no_folder_is_short_enough_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(clusters, "MAX_FOLDER_LENGTH", 0)
    with pytest.raises(ResourceError) as caught, clusters._private():
        pass
    said = str(caught.value)
    assert said.startswith("Ray needs a folder for its sockets, with a path of at most 0 letters: ")
    assert said.endswith("; set TMPDIR to one, or use --engine inline")
    assert caught.value.exit_code == 7


def test_a_search_runs_where_the_temporary_folder_is_too_long_for_a_socket(data_dir, tmp_path, monkeypatch):
    place = tmp_path / ("x" * 90)
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    done = gantool(*SEARCHED, "--data-dir", str(data_dir), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trial 0 finished" in done.stderr
