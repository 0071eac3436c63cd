"""Redirect the gaze of a face in photos.

  rtgaze redirect me.jpg --look-at camera
  rtgaze redirect me.jpg --yaw 20 --pitch -5 -o out.png
  rtgaze redirect *.jpg --look-at camera -o folder/

Angles are degrees: +pitch looks up, +yaw to the left of the image; (0, 0) looks into the lens. Only the eyes
change. The result says in its metadata that it was edited by AI.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rtgaze_jax.errors import UserError

if TYPE_CHECKING:
    from rtgaze_jax.inference.photo import Photo
    from rtgaze_jax.inference.redirector import Redirector


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="PNG, JPEG, WebP, TIFF, ...")
    parser.add_argument("--pitch", type=float, help="degrees, -30 to 30, up is positive")
    parser.add_argument("--yaw", type=float, help="degrees, -45 to 45, image left is positive")
    parser.add_argument("--look-at", choices=["camera"], help="instead of angles: look into the lens")
    parser.add_argument(
        "-o", "--out", metavar="OUT", help="file to write, or a folder (default: NAME_redirected beside the photo)"
    )
    parser.add_argument("--strength", type=float, default=1.0, help="0 to 1: how much of the correction (default 1)")
    parser.add_argument("--frame", choices=["camera", "head"], default="camera", help="what the angles are relative to")
    parser.add_argument("--face", metavar="N|all", help="which face: 1 is the largest (default), or all")
    parser.add_argument("--face-only", action="store_true", help="write the aligned face crop, not the photo")
    parser.add_argument("--weights", metavar="FILE", help="weights to use instead of those that come with the package")
    parser.add_argument("--no-provenance", action="store_true", help="do not mark the result as edited by AI")


def run(args: argparse.Namespace) -> int:
    """Redirects every photo; a photo that fails among several is reported and the rest is done."""
    if args.look_at and (args.pitch is not None or args.yaw is not None):
        raise UserError("--look-at already says where to look: leave out --pitch and --yaw")
    if not args.look_at and args.pitch is None and args.yaw is None:
        raise UserError("say where to look: --look-at camera, or --pitch and --yaw in degrees")
    if args.face not in (None, "all") and not args.face.isdecimal():
        raise UserError(f"--face takes a number from 1 or 'all', not '{args.face}'")
    outputs = _outputs([Path(p) for p in args.photos], args.out, args.face_only)

    from rtgaze_jax.inference.photo import read_photo

    # a wrong file is told before anything slow starts
    only = read_photo(next(iter(outputs))) if len(outputs) == 1 else None

    from rtgaze_jax.inference.redirector import GazeWarning, load

    model = load(args.weights)
    failed = 0
    for photo, out in outputs.items():
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", GazeWarning)
            try:
                gazes = _redirect(model, only or read_photo(photo), out, args)
            except UserError as error:
                if len(outputs) == 1:
                    raise
                print(f"rtgaze: {error}", file=sys.stderr)
                failed += 1
                continue
        for note in notes:
            if issubclass(note.category, GazeWarning):
                print(f"rtgaze: warning: {note.message}", file=sys.stderr)
        angles = "; ".join(f"pitch {pitch:.1f}, yaw {yaw:.1f}" for pitch, yaw in gazes)
        print(f"{photo} -> {out} ({angles})", flush=True)
    if failed:
        print(f"rtgaze: {failed} of {len(outputs)} photos failed", file=sys.stderr)
    return 2 if failed else 0


def _redirect(model: "Redirector", photo: "Photo", out: Path, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Redirects one photo's face or faces and writes the result; returns the gazes used, (pitch, yaw) in degrees."""
    from rtgaze_jax.inference.photo import Photo, write_photo
    from rtgaze_jax.inference.provenance import Edit

    def look(face):
        if args.look_at:
            return face.look_at(args.look_at, strength=args.strength)
        return face.redirect(args.pitch or 0.0, args.yaw or 0.0, frame=args.frame, strength=args.strength)

    edit = None if args.no_provenance else Edit()
    if args.face == "all" and not args.face_only:
        pixels, gazes = photo.pixels, []
        for face in model.encode_all(photo):
            result = look(face)
            pixels = result.paste(pixels)
            gazes.append(result.gaze)
        write_photo(out, pixels, photo, edit)
        return gazes
    result = look(model.encode(photo, face=None if args.face is None else int(args.face)))
    if args.face_only:
        write_photo(out, result.face, Photo(result.face), edit)
    else:
        write_photo(out, result.image, photo, edit)
    return [result.gaze]


def _outputs(photos: list[Path], out: str | None, face_only: bool) -> dict[Path, Path]:
    """Which file each photo's result goes to. Raises UserError for names that clash or cannot be written."""
    from rtgaze_jax.inference.photo import WRITABLE, writable

    folder = None
    if out is not None and (len(photos) > 1 or out.endswith("/") or Path(out).is_dir()):
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"-o {out} is a file: several photos need a folder")
    outputs: dict[Path, Path] = {}
    for photo in photos:
        if photo.is_dir():
            raise UserError(f"{photo} is a folder; name the photos in it")
        suffix = photo.suffix if photo.suffix.lower() in WRITABLE and not face_only else ".png"
        if out is not None and folder is None:
            target = writable(out)
        elif folder is not None:
            target = folder / f"{photo.stem}{suffix}"
        else:
            target = photo.with_name(f"{photo.stem}_{'face' if face_only else 'redirected'}{suffix}")
        if target.exists() and photo.exists() and target.samefile(photo):
            raise UserError(f"{target} is the photo itself: choose another name with -o")
        if target in outputs.values():
            raise UserError(f"two photos would be written to {target}: rename one or do them separately")
        outputs[photo] = target
    return outputs
