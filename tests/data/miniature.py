"""Small sources in the formats of the public data sets, drawn from known geometry: bright dots on a head.

Shares no code with the package; formulas are written out from the data sets' papers and scripts.
"""

import csv

import cv2
import h5py
import numpy as np

# face_model.txt, rows 20, 23, 26, 29, 15, 19 (corners of the eyes, nose) and 32, 38 (mouth), to a hundredth of a mm
ETH_SIX = np.array(
    [
        [-46.5095, -38.3271, 36.416],
        [-17.7607, -32.5852, 29.0762],
        [18.0439, -30.9568, 29.063],
        [44.7376, -34.1079, 36.7324],
        [-10.6117, 12.9583, 21.6228],
        [11.2896, 13.8642, 21.8379],
    ]
)
ETH_MOUTH = np.array([[-20.0011, 35.8731, 24.6794], [21.4669, 37.1225, 24.3927]])
# rows 0 to 5: what GazeNeRF's code takes for the six points
ETH_FIRST = np.array(
    [
        [0.5862, 78.7296, 23.1763],
        [-57.1138, -51.3004, 46.7827],
        [-50.2168, -56.0269, 34.1621],
        [-38.7957, -56.905, 21.9291],
        [-29.627, -57.6865, 15.8575],
        [-15.5639, -53.8177, 12.0032],
    ]
)
MPII_SIX = np.array(
    [
        [-45.0968, -0.4838, 2.397],
        [-21.3129, 0.4838, -2.397],
        [21.3129, 0.4838, -2.397],
        [45.0968, -0.4838, 2.397],
        [-26.2996, 68.595, 0.0],
        [26.2996, 68.595, 0.0],
    ]
)
RIG = [
    *((0, 0, 946), (-14, 0, 951), (-38, -1, 1067), (-37, -14, 1092), (-13, -29, 1115), (2, -28, 1109)),
    *((25, -13, 1094), (26, 0, 1072), (1, 29, 1034), (-15, 28, 1030), (-40, 32, 1023), (-68, -2, 1087)),
    *((-40, -44, 1376), (-5, -43, 1221), (36, -43, 1382), (56, 0, 1087), (26, 34, 1021), (-7, 41, 1059)),
]
WIDTH, HEIGHT = 2104, 1400
GREY, BRIGHT = 60, 235


def center_of(six):
    return (six[:4].mean(0) + six[4:].mean(0)) / 2


def bad_center_of_lineage():
    return (ETH_FIRST[:4].mean(0) + ETH_FIRST[4:].mean(0)) / 2


def dots(six):
    """Points [n, 3] mm on and in a head, at several depths, at least 25 mm apart in frontal views."""
    at = six[:4].mean(0) * [0, 1, 1]
    return at + np.array(
        [[-45, 0, 5], [45, 0, 5], [0, 5, -15], [-30, 70, 0], [30, 70, -8], [0, 98, 5], [0, -40, 10], [0, 42, -25]]
    )


def to_world(points, six, mouth):
    """World units: origin 16.5 mm below and 33 mm behind the eyes' corners, y from mouth to eyes, x to the left."""
    eyes = six[:4].mean(0) * [0, 1, 1]
    down = mouth.mean(0) - six[:4].mean(0)
    down = np.array([0, down[1], down[2]]) / np.hypot(down[1], down[2])
    axes = np.stack([np.array([1.0, 0, 0]), -down, -np.cross([1.0, 0, 0], down)])
    return (np.asarray(points) - eyes) @ axes.T / 370 + np.array([0, 16.5, 33]) / 370, axes


def rodrigues(vector):
    return cv2.Rodrigues(np.asarray(vector, float))[0]


def see(points, matrix, distortion=None):
    """OpenCV pixels of points [n, 3] in camera axes, with the lens formula of OpenCV's documentation."""
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    if distortion is not None:
        k1, k2, p1, p2, k3 = distortion
        r = x * x + y * y
        radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
        x, y = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x), y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    return np.stack([matrix[0, 0] * x + matrix[0, 2], matrix[1, 1] * y + matrix[1, 2]], -1)


def draw(points, size, sigma):
    """A grey picture u8[h, w, 3] (BGR) with Gaussian dots at OpenCV pixels [n, 2]."""
    width, height = size
    picture = np.full((height, width), float(GREY))
    reach = int(np.ceil(5 * sigma))
    for x, y in points:
        if not (-reach < x < width + reach and -reach < y < height + reach):
            continue
        xs = np.arange(max(0, round(x) - reach), min(width, round(x) + reach + 1))
        ys = np.arange(max(0, round(y) - reach), min(height, round(y) + reach + 1))
        blob = np.exp(-((xs - x) ** 2 / (2 * sigma**2)))[None] * np.exp(-((ys - y) ** 2 / (2 * sigma**2)))[:, None]
        picture[ys[:, None], xs[None]] += (BRIGHT - GREY) * blob
    grey = np.clip(picture, 0, 255).round().astype(np.uint8)
    return np.stack([grey // 2, grey, grey], -1)  # half as blue as red and green: swapped channels show


def find_dot(image, place, radius):
    """Where a dot near `place` (continuous pixels, centres at halves) is in an image u8[h, w, 3] RGB: its centroid."""
    x0, y0 = np.floor(place - radius).astype(int)
    patch = image[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1, 0].astype(float)
    weight = np.clip(patch - GREY - 8, 0, None)
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() + (x0 + 0.5, y0 + 0.5)


def rig_cameras():
    """(matrix, distortion, rotation, translation) from rig (camera 0) to each of the 18 cameras."""
    meeting, cameras = np.array([4.0, 3.0, 946.0]), []
    for number, (yaw, pitch, distance) in enumerate(RIG):
        yaw, pitch = np.radians([yaw, pitch])
        out = np.array([np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)])
        forward = -out
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        rotation = rodrigues([0, 0, 0.02 * number]) @ np.stack([right, np.cross(forward, right), forward])
        focal = 4500.0 + 11 * number
        matrix = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal + 3, (HEIGHT - 1) / 2], [0, 0, 1]])
        lens = np.array([0.25, 0.9, 1e-3, -1.5e-3, -1.3])
        cameras.append((matrix, lens, rotation, -rotation @ (meeting + distance * out)))
    return cameras


class Moment:
    """A frame of the rig: head pose and gaze target in rig axes."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.rotation = rodrigues(rng.uniform(-0.25, 0.25, 3))
        self.translation = np.array([4.0, 3.0, 946.0]) + rng.uniform(-25, 25, 3)
        self.target = np.array([*rng.uniform(-250, 250, 2), rng.uniform(-20, 60)])

    def head_gaze(self, origin):
        """Unit gaze vector [3] in model axes, from a model point to the target."""
        vector = self.rotation.T @ (self.target - self.translation) - origin
        return vector / np.linalg.norm(vector)

    def in_camera(self, camera):
        """Head rotation, head translation and target in a camera's axes."""
        _, _, rotation, translation = camera
        return rotation @ self.rotation, rotation @ self.translation + translation, rotation @ self.target + translation


def landmarks_68(six, mouth):
    """A face of 68 points: only the eight that the models name are true."""
    points = np.zeros((68, 3))
    angle = np.linspace(-0.1, np.pi + 0.1, 17)
    points[:17] = np.stack([-70 * np.cos(angle), -20 + 95 * np.sin(angle), 60 - 30 * np.sin(angle)], -1)
    points[17:27] = np.stack([np.linspace(-55, 55, 10), np.full(10, -55.0), np.full(10, 30.0)], -1)
    points[27:36] = np.stack([np.zeros(9), np.linspace(-35, 15, 9), np.full(9, 10.0)], -1)
    points[31], points[35] = six[4], six[5]
    for first, (a, b) in ((36, (six[0], six[1])), (42, (six[2], six[3]))):
        around = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        middle, half = (a + b) / 2, (b - a) / 2
        points[first : first + 6] = middle - np.outer(np.cos(around), half) - np.outer(np.sin(around), [0, 6, 0])
    points[48:] = mouth.mean(0)
    points[48], points[54] = mouth
    return points


def write_calibration(folder):
    folder.mkdir(parents=True)
    for number, (matrix, lens, rotation, translation) in enumerate(rig_cameras()):
        file = cv2.FileStorage(str(folder / f"cam{number:02}.xml"), cv2.FILE_STORAGE_WRITE)
        file.write("image_Width", WIDTH)
        file.write("image_Height", HEIGHT)
        file.write("Camera_Matrix", matrix)
        file.write("Distortion_Coefficients", lens.reshape(1, 5))
        file.write("cam_translation", translation.reshape(3, 1))
        file.write("cam_rotation", rotation)
        file.release()


def write_eth_raw(root, people, fewer, noise=1.0):
    """people: {subject: {frame: Moment}}; fewer: {frame: how many of the 18 cameras}.

    Every picture's own head pose is off by centimetres, as in the original.
    """
    rig = rig_cameras()
    write_calibration(root / "calibration" / "cam_calibration")
    (root / "data" / "annotation_train").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for subject, frames in people.items():
        rows = []
        for frame, moment in frames.items():
            folder = root / "data" / "train" / f"subject{subject:04}" / f"frame{frame:04}"
            folder.mkdir(parents=True)
            for number in range(fewer.get(frame, 18)):
                matrix, lens, *_ = rig[number]
                turn, place, target = moment.in_camera(rig[number])
                picture = draw(see(dots(ETH_SIX) @ turn.T + place, matrix, lens), (WIDTH, HEIGHT), 7.0)
                if number in (3, 6, 13):
                    picture = picture[::-1, ::-1]
                cv2.imwrite(str(folder / f"cam{number:02}.JPG"), picture, (cv2.IMWRITE_JPEG_QUALITY, 98))
                marks = see(landmarks_68(ETH_SIX, ETH_MOUTH) @ turn.T + place, matrix, lens)
                wrong = cv2.Rodrigues(rodrigues(noise * rng.normal(0, 0.02, 3)) @ turn)[0].ravel()
                values = [0, 0, *target, *wrong, *(place + noise * rng.normal(0, 8, 3)), *marks.ravel()]
                rows.append([folder.name, f"cam{number:02}.JPG", *(f"{value:.6f}" for value in values)])
        with open(root / "data" / "annotation_train" / f"subject{subject:04}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)


def normalize(turn, place, six):
    """Normalising rotation and distance after Zhang et al. 2018."""
    center = turn @ center_of(six) + place
    forward = center / np.linalg.norm(center)
    down = np.cross(forward, turn[:, 0])
    down /= np.linalg.norm(down)
    right = np.cross(down, forward)
    return np.stack([right / np.linalg.norm(right), down, forward]), np.linalg.norm(center)


def pitch_yaw(vector):
    vector = vector / np.linalg.norm(vector)
    return np.array([np.arcsin(-vector[1]), np.arctan2(-vector[0], -vector[2])])


def head_label(head):
    z = head[:, 2]
    return np.array([np.arcsin(z[1]), np.arctan2(z[0], z[2])])


def patch(turn, place, six, focal, norm_distance, size, sigma=6.0, points=None):
    """(BGR picture, normalising rotation): what warpPerspective makes of a sharp photo with the release's matrices."""
    rotation, distance = normalize(turn, place, six)
    scaled = np.array(
        [[focal * distance / norm_distance, 0, size / 2], [0, focal * distance / norm_distance, size / 2], [0, 0, 1]]
    )
    local = ((dots(six) if points is None else points) @ turn.T + place) @ rotation.T
    return draw(see(local, scaled), (size, size), sigma), rotation


def write_eth_released(path, frames, size=448, spare=20):
    """One subject's h5 of the release script, with its empty rows at the end. frames: {frame: Moment}."""
    rig, rows = rig_cameras(), [(frame, moment, number) for frame, moment in frames.items() for number in range(18)]
    count = len(rows) + spare
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        shape = (size, size, 3)
        picture = file.create_dataset("face_patch", (count, *shape), np.uint8, chunks=(1, *shape), compression="lzf")
        numbers = {key: file.create_dataset(key, (count, 1), int) for key in ("frame_index", "cam_index")}
        angles = {key: file.create_dataset(key, (count, 2), float) for key in ("face_gaze", "face_head_pose")}
        matrices = file.create_dataset("face_mat_norm", (count, 3, 3), float)
        for row, (frame, moment, number) in enumerate(rows):
            turn, place, target = moment.in_camera(rig[number])
            large, rotation = patch(turn, place, ETH_SIX, 960, 300, 448, sigma=5.0)
            picture[row] = large if size == 448 else cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
            numbers["frame_index"][row], numbers["cam_index"][row] = frame, number
            angles["face_gaze"][row] = pitch_yaw(rotation @ (target - turn @ center_of(ETH_SIX) - place))
            angles["face_head_pose"][row] = head_label(rotation @ turn)
            matrices[row] = rotation


def lineage_label(turn, place, target):
    """`pitchyaw_head` as GazeNeRF's code makes it: from the wrong centre, pitch positive downwards."""
    vector = turn.T @ (target - place) - bad_center_of_lineage()
    vector /= np.linalg.norm(vector)
    return np.array([np.arcsin(vector[1]), np.arctan2(-vector[0], -vector[2])])


def write_lineage(path, rows, focal, more=()):
    """rows: (frame, camera, head rotation, translation, target, dots, extra values) of one subject, 512 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(rows)
    with h5py.File(path, "w") as file:
        picture = file.create_dataset(
            "face_patch", (count, 512, 512, 3), np.uint8, chunks=(1, 512, 512, 3), compression="lzf"
        )
        masks = {
            key: file.create_dataset(key, (count, 512, 512), np.uint8, chunks=(1, 512, 512), compression="lzf")
            for key in ("head_mask", "left_eye_mask", "right_eye_mask")
        }
        numbers = {key: file.create_dataset(key, (count, 1), np.uint8) for key in ("frame_index", "cam_index")}
        marks = file.create_dataset("facial_landmarks", (count, 68, 2), float)
        angles = {
            key: file.create_dataset(key, (count, 2), float) for key in ("pitchyaw_head", "face_head_pose", "pitchyaw")
        }
        vectors = {key: file.create_dataset(key, (count, 3), float) for key in ("pitchyaw_3d", *more)}
        for row, (frame, number, turn, place, target, points, extra) in enumerate(rows):
            picture[row], rotation = patch(turn, place, ETH_SIX, focal, 680, 512, sigma=3.5, points=points)
            numbers["frame_index"][row], numbers["cam_index"][row] = frame % 256, number
            masks["head_mask"][row, 100:400, 120:390] = 255
            masks["left_eye_mask"][row, 200:215, 180:220] = 255  # left in the image: the subject's right
            masks["right_eye_mask"][row, 200:215, 300:340] = 255
            marks[row] = 256
            angles["pitchyaw_head"][row] = lineage_label(turn, place, target)
            angles["face_head_pose"][row] = head_label(rotation @ turn)
            angles["pitchyaw"][row] = (812, 340)  # a place on the screen
            vectors["pitchyaw_3d"][row] = target
            for key, value in extra.items():
                vectors[key][row] = value
