"""Draw a contact sheet of a data set: random people with gaze arrows, or their eyes from near."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.png")
    parser.add_argument("--split", help="needed if DIR holds several splits")
    parser.add_argument("--eyes", action="store_true", help="the eyes of a few people in nine gazes")
    parser.add_argument("--people", type=int, metavar="N", help="how many (default: 40; 6 with --eyes)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which ones (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Draws the sheet."""
    from rtgaze_jax.data import sheet
    from rtgaze_jax.data.storage import RecordSource, only_split
    from rtgaze_jax.errors import UserError

    if args.people is not None and args.people < 1:
        raise UserError(f"--people must be at least 1, not {args.people}")
    source = RecordSource(args.directory, only_split(args.directory, args.split))
    draw, people = (sheet.eye_sheet, 6) if args.eyes else (sheet.contact_sheet, 40)
    image = draw(source, args.people or people, seed=args.seed)
    sheet.write_png(args.output, image)
    print(f"{args.output}: {image.shape[1]} x {image.shape[0]} pixels")
