"""The paper's main table, ours beside it.

python experiments/tables/main_table.py DATA|RESULT.json [--weights FILE] [--efficiency FILE.json] [--out FILE.md]
"""

import json
from pathlib import Path

from paper import EXTRA, MAIN, MAIN_COLUMNS, NOTE, arguments, evaluated, finish, markdown, ours, published, run


def main() -> None:
    """Evaluates, or reads an evaluation, and writes the table."""
    parser = arguments(__doc__)
    parser.add_argument("data", help="a data set, or the JSON of an evaluation")
    parser.add_argument("--weights", help="default: the package's own")
    parser.add_argument("--options", default="", help="more options of 'rtgaze evaluate', in one string")
    parser.add_argument("--efficiency", type=Path, help="JSON of efficiency.py: fills in the seconds")
    args = parser.parse_args()
    result = evaluated(args.data, args.weights, args.options)
    columns = (*MAIN_COLUMNS, *EXTRA)
    rows = ours(result, columns)
    if args.efficiency:
        seconds = json.loads(args.efficiency.read_text())
        first = next(iter(rows))
        rows[first][columns.index("seconds per image")] = f"{seconds['one_shot']:.4f} ({seconds['device']})"
    own = result["estimator_error_deg"]["mean"]
    pairs = result["protocol"]["pairs_sha256"][:12]
    note = f"Our estimator's own error on these true images: {own:.2f} degrees. Pairs: {pairs}."
    title = f"Within-dataset comparison (published: ETH-XGaze; ours: {result['protocol']['data']})"
    finish(markdown(title, columns, published(MAIN, len(columns)) | rows, NOTE, note), args.out)


if __name__ == "__main__":
    run(main)
