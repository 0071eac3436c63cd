"""The paper's cross-dataset table, ours beside it: the same weights on data they were not trained on.

python experiments/tables/cross_dataset.py DATA|RESULT.json ... [--weights FILE] [--out FILE.md]
"""

from paper import CROSS, CROSS_COLUMNS, EXTRA, NOTE, arguments, evaluated, finish, markdown, ours, published, run

NAMES = {"columbia_gaze": "ColumbiaGaze", "mpii_face_gaze": "MPIIFaceGaze"}


def main() -> None:
    """Evaluates, or reads evaluations, and writes one table a data set."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="+", help="data sets, or JSONs of evaluations")
    parser.add_argument("--weights", help="default: the package's own")
    parser.add_argument("--options", default="", help="more options of 'rtgaze evaluate', in one string")
    args = parser.parse_args()
    columns = (*CROSS_COLUMNS, *EXTRA)
    results = [evaluated(data, args.weights, args.options) for data in args.data]
    texts, shown = [], set()
    for result in results:
        name = NAMES.get(result["protocol"]["data"], result["protocol"]["data"])
        shown.add(name)
        rows = published(CROSS.get(name, {}), len(columns)) | ours(result, columns)
        texts.append(markdown(f"Cross-dataset: {name}", columns, rows))
    for name in CROSS.keys() - shown:
        rows = published(CROSS[name], len(columns))
        texts.append(markdown(f"Cross-dataset: {name} (published only; ours needs the data)", columns, rows))
    finish("\n".join(sorted(texts)) + f"\n{NOTE}\n", args.out)


if __name__ == "__main__":
    run(main)
