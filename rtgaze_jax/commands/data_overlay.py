"""Draw the labels of records over their pictures: gaze arrows, head axes, landmarks, outline of the eyes."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--index", type=int, nargs="+", default=[0], metavar="I", help="numbers of records, from 0")
    parser.add_argument("--split", help="needed if DIR holds several splits")
    parser.add_argument(
        "--size", type=int, default=512, metavar="R", help="pixels a side of each picture (default: 512)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.png")


def run(args: argparse.Namespace) -> None:
    """Draws the pictures side by side."""
    from rtgaze_jax.data import sheet
    from rtgaze_jax.data.storage import load_record

    records = [load_record(args.directory, args.split, index) for index in args.index]
    sheet.write_png(args.output, sheet.tile([sheet.overlay(record, args.size) for record in records], columns=4))
    print(f"{args.output}: {len(records)} records")
