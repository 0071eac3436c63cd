"""Indices into the 478 face landmarks of MediaPipe's face mesh: 468 mesh points, then 5 iris points per eye.

Lists that come in pairs are ordered (subject's left, subject's right). The subject's left eye is on the right of an
unmirrored image and is what MediaPipe's own files call the right eye. Tables: MediaPipe (Apache-2.0), face_mesh and
iris_tracking modules.
"""

MESH_POINTS = 468
IRIS_POINTS = 5
LANDMARKS = MESH_POINTS + 2 * IRIS_POINTS

# (outer corner, inner corner) of (left, right)
EYE_CORNERS = ((263, 362), (33, 133))
# (middle of the upper lid, middle of the lower lid)
EYE_LIDS = ((386, 374), (159, 145))
# centre of each iris, followed by its four rim points (centre + 1 .. centre + 4)
IRIS_CENTRES = (473, 468)
MOUTH_CORNERS = (291, 61)
FOREHEAD, CHIN = 10, 152

# The mesh points that the iris network refines, in its output order: lower lid (from outer to inner corner), upper
# lid, then # rings of growing size around the eye. The first 16 are the opening of the eye.
_RIGHT_EYE_REGION = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110, 24, 23, 22, 26, 112,
    243, 247, 30, 29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221,
    189, 35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)  # fmt: skip
_LEFT_EYE_REGION = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 359, 255, 339, 254, 253, 252, 256,
    341, 463, 467, 260, 259, 257, 258, 286, 414, 446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442,
    441, 413, 265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336,
    285, 417,
)  # fmt: skip
EYE_REGIONS = (_LEFT_EYE_REGION, _RIGHT_EYE_REGION)


def _ring(region: tuple[int, ...], start: int) -> tuple[int, ...]:
    """Sixteen points from the outer corner along the lower lid to the inner corner and back along the upper lid."""
    lower, upper = region[start : start + 9], region[start + 9 : start + 16]
    return lower + upper[::-1]


# closed polygons: the opening of the eye, and the second ring outside it (about the fold of the lid)
EYE_CONTOURS = tuple(_ring(region, 0) for region in EYE_REGIONS)
EYE_FOLDS = tuple(_ring(region, 32) for region in EYE_REGIONS)
EYE_HALOS = tuple(_ring(region, 16) for region in EYE_REGIONS)

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
