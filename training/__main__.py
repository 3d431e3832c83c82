"""The whole recipe in one command: `python -m training --minutes 60` trains, evaluates, packs and writes the card.

Every step can be run alone and resumed: training.train, training.evaluate, training.pack, training.card. Options that
this command does not know go to training.train. On a GPU (untested there):

    python -m training --minutes 10 --device cuda --config large --compile --workers 12 --scale 16
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from training.pack import PACKAGE
from training.train import OUT


def steps(given: argparse.Namespace, rest: list[str]) -> list[list[str]]:
    """The commands, in order."""
    run, device = str(given.run), ["--device", given.device]
    evaluation = str(given.run / "evaluation")
    name, snapshots = "packed", sorted((given.run / "snapshots").glob("tokens-*"))
    curve = [word for each in snapshots for word in ("--model", f"{each.name}={each}")]
    evaluate = ["training.evaluate", "--out", evaluation, "--share", str(given.share), *device]
    todo = [
        ["training.train", "--run", run, "--tokenizer", str(given.tokenizer), *device, *rest],
        [*evaluate, "--model", f"{name}={run}/model"],
    ]
    if curve:
        cells = "one needle,four keys,forty keys,multi-value,multi-query,2 hops,4 hops"
        todo.append([*evaluate, *curve, "--cells", cells, "--lengths", "4096", "--no-baselines", "--windows", "0"])
    if given.pack:
        todo.append(["training.pack", f"{run}/model", "--tokenizer", str(given.tokenizer)])
        todo.append(["training.card", "--run", run, "--evaluation", evaluation, "--model", name])
    return todo


def main() -> None:
    """Run the steps one after the other; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=OUT / "run")
    parser.add_argument("--tokenizer", type=Path, default=PACKAGE / "model" / "tokenizer.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--share", type=float, default=1.0, help="of the documents of a full evaluation")
    parser.add_argument("--pack", action=argparse.BooleanOptionalAction, default=True, help="replace the packed model")
    given, rest = parser.parse_known_args()
    done = 0
    while done < len(todo := steps(given, rest)):  # training makes the snapshots that a later step reads
        subprocess.run([sys.executable, "-m", *todo[done]], check=True)
        done += 1


if __name__ == "__main__":
    main()
