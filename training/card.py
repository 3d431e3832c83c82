"""Render the model card from what was measured: `python -m training.card`.

Reads `verdicts.jsonl` and `survey.json` of an evaluation and `log.jsonl` of the training run; writes card.md and
card.json beside the packed weights and docs/reference-model.md. Nothing in the card is typed by hand but its prose.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training import cardparts
from training.evaluate import OUT as EVALUATION
from training.pack import PACKAGE
from training.train import OUT

DOCS = Path(__file__).resolve().parent.parent / "docs" / "reference-model.md"

HEAD = """# The reference model

A {layers}-layer Llama of {parameters:.2f} million parameters (hidden {hidden}, {heads} query heads and {kv_heads}
key-value heads of {head_dim}, rope theta {theta:g}, vocabulary {vocabulary}), {megabytes:.1f} MB in bfloat16. It reads
up to {context} tokens and answers questions about what it read in the form farspan uses:
`\\n\\nQuestion: ...\\nAnswer:`, the answer ended by `<eos>`. It recalls; it knows nothing and cannot reason. It exists
so that every method can be judged, and every command tried, on any machine without a download.

Everything below was measured on files of the standard library, wordings, words, types of key and types of value that
training never saw, unless a row says otherwise; greedy, full cache, bfloat16. An answer counts only if every token is
right and the end follows. Square brackets hold 95% Wilson intervals; several questions are asked of one document, each
from a fork of the same reading, so they are somewhat too narrow. `n` is the number of questions.
"""

COMMANDS = """## How it was made

{cost}

```
{trained}python -m training.evaluate --model packed={run}/model --out {run}/evaluation
for snapshot in {run}/snapshots/tokens-*; do
    python -m training.evaluate --model $(basename $snapshot)=$snapshot --out {run}/evaluation --lengths 4096 \\
        --share 0.156 --no-baselines --windows 0 \\
        --cells "one needle,four keys,forty keys,multi-value,multi-query,2 hops,4 hops"
done
python -m training.pack {run}/model
python -m training.card --run {run} --evaluation {run}/evaluation --before {before:g}
```

`python -m training --minutes 300 --init src/farspan/reference/model --threads 2 --compile` does all of it, going on
from the packed weights. The same recipe trains a larger model (11 million parameters) from scratch where a GPU is at
hand; that has not been run (untested):

```
python -m training --minutes 10 --config large --device cuda --compile --workers 12 --scale 16 --run training/out/large
```
"""


def build(evaluation: Path, run: Path, model: str, rival: str | None, before: int = 0) -> tuple[str, dict[str, Any]]:
    """The card as Markdown and as data."""
    lines = (evaluation / "verdicts.jsonl").read_text().splitlines()
    verdicts: list[dict[str, Any]] = [json.loads(line) for line in lines]
    own = [each for each in verdicts if each["model"] == model]
    survey = json.loads((evaluation / "survey.json").read_text())[model]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    config = json.loads((PACKAGE / "model" / "config.json").read_text())
    full = [each for each in own if each["mode"] == "full"]
    table = cardparts.cells(full)
    curve = cardparts.curve(verdicts, full, log, before)
    parts = [
        HEAD.format(**cardparts.shape(config, PACKAGE / "model")),
        cardparts.aims(table),
        cardparts.accuracy(table),
        cardparts.by_depth(full),
        cardparts.by_type(full),
        cardparts.baselines(own),
        cardparts.perplexity(survey["perplexity"]),
        cardparts.heads(survey["heads"]),
        COMMANDS.format(
            cost=cardparts.cost(log, run),
            trained=cardparts.command(run),
            run=f"training/out/{run.name}",
            before=before / 1e6,
        ),
        cardparts.curve_section(curve, table),
    ]
    if rival and any(each["model"] == rival for each in verdicts):
        against = cardparts.cells([each for each in verdicts if each["model"] == rival and each["mode"] == "full"])
        parts.insert(6, cardparts.against(table, against))
    data = {
        "accuracy": [dict(zip(("task", "length"), key, strict=True)) | value for key, value in table.items()],
        "perplexity": survey["perplexity"],
        "heads": survey["heads"],
        "curve": curve,
        "training": log[-1],
    }
    return "\n".join(parts), data


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, default=EVALUATION)
    parser.add_argument("--run", type=Path, default=OUT / "run")
    parser.add_argument("--model", default="packed", help="the evaluated model that is packed")
    parser.add_argument("--rival", default="trial", help="an evaluated model to compare with, if there is one")
    parser.add_argument("--before", type=float, default=0.0, help="million tokens trained before this run")
    given = parser.parse_args()
    text, data = build(given.evaluation, given.run, given.model, given.rival, round(1e6 * given.before))
    (PACKAGE / "card.md").write_text(text)
    (PACKAGE / "card.json").write_text(json.dumps(data, indent=1) + "\n")
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(text)


if __name__ == "__main__":
    main()
