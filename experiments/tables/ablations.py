"""The paper's two ablations, ours beside them, from the folders of the sweeps.

  python experiments/sweep.py experiments/sweeps/injection.py --workdir runs/injection
  python experiments/tables/ablations.py injection runs/injection --data data/test [--out FILE.md]

and the same with "losses". Each run's weights are evaluated once; the results are kept as RUN/evaluation.json.
"""

from pathlib import Path

from paper import (
    ABLATION_COLUMNS,
    EXTRA,
    INJECTION,
    LOSSES,
    NOTE,
    arguments,
    evaluated,
    finish,
    markdown,
    ours,
    published,
    read,
    run,
)

from rtgaze_jax.errors import UserError

TABLES = {
    "injection": ("Where the gaze prompt enters", INJECTION),
    "losses": ("Terms of the loss", LOSSES),
}


def main() -> None:
    """Evaluates what is not evaluated yet and writes the table."""
    parser = arguments(__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("workdir", type=Path, help="of the sweep")
    parser.add_argument("--data", help="the data set to evaluate on, where a run has no evaluation.json")
    parser.add_argument("--options", default="", help="more options of 'rtgaze evaluate', in one string")
    args = parser.parse_args()
    title, paper = TABLES[args.table]
    columns = (*ABLATION_COLUMNS, *EXTRA)
    rows = published({f"paper: {name}": values for name, values in paper.items()}, len(columns))
    for name in paper:
        folder = args.workdir / name
        kept = folder / "evaluation.json"
        if not kept.is_file():
            if args.data is None:
                raise UserError(f"{kept} is missing: name a data set with --data to evaluate on")
            evaluated(args.data, str(folder / "weights.safetensors"), args.options, kept)
        label, cells = next(iter(ours(read(kept), columns, f"ours: {name}").items()))
        rows[label] = cells
    finish(markdown(f"{title} (published: ETH-XGaze)", columns, rows, NOTE), args.out)


if __name__ == "__main__":
    run(main)
