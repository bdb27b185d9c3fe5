"""Check gantool on a GPU: `nox -s gpu`, or this script alone.

It prints one table last, and the exit status is 1 if a check failed. It needs a checkout, Python 3.11 or newer, torch,
numpy, PyYAML, typer, rich, Pillow and filelock. `--wheels` may bring the rest: pydantic, platformdirs, safetensors
and, for the search, Optuna. It needs no installed gantool, no test library and no network. Without a GPU it checks
itself on the CPU, with narrow networks and fewer steps.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKS = ("steps", "float64", "resume", "sampling", "speed", "search")


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; return the exit status."""
    chosen = options(arguments)
    prepare(chosen.wheels)
    import gpu_checks

    if chosen.child:
        gpu_checks.train_alone(chosen.child, chosen.device)
        return 0
    return gpu_checks.run(chosen)


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="a folder of unpacked wheels, to import from")
    parser.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, cuda:1 or mps")
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE", help="names of shipped recipes; all without it")
    parser.add_argument("--steps", type=int, help="of training; 200 without it, or 20 on a CPU")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS, help="which; all without it")
    parser.add_argument("--minutes", type=float, help="after which nothing new begins; 7.5 without it, or 20 on a CPU")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table, and what stands above it, here")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # a run, its data, and which kernels
    return parser.parse_args(arguments)


def prepare(wheels: Path | None) -> None:
    """Make the checkout and the wheels importable, here and in child processes, and set what torch reads early."""
    if wheels and not wheels.is_dir():
        sys.exit(f"--wheels {wheels}: no such folder")
    paths = [str(HERE.parents[1]), *([str(wheels.resolve())] if wheels else [])]
    sys.path[:0] = [str(HERE), str(HERE.parent / "support"), *paths]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([before] if before else [])])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add up in any order
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore", DeprecationWarning)


if __name__ == "__main__":
    sys.exit(main())
