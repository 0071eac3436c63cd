"""Write the arrays of one record to a NumPy file (all fields of the schema, see rtgaze_jax/data/record.py)."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument(
        "--index", type=int, required=True, metavar="I", help="number of the record in the split, from 0"
    )
    parser.add_argument("--split", help="needed if DIR holds several splits")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.npz")


def run(args: argparse.Namespace) -> None:
    """Writes the file."""
    import io

    import numpy as np

    from rtgaze_jax.data.storage import load_record
    from rtgaze_jax.files import write_bytes

    record = load_record(args.directory, args.split, args.index)
    content = io.BytesIO()
    np.savez_compressed(content, **record)
    write_bytes(args.output, content.getvalue())
    print(f"{args.output}: {', '.join(record)}")
