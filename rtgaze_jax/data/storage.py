"""Records on disk: ArrayRecord shards that tensorflow-datasets reads, and a manifest with checksums for each split.

    DIR/gaze_heads-test.array_record-00000-of-00050    one tf.Example with encoded images for each record
    DIR/manifest-test.json                             what was asked for, what is there, SHA-256 of every shard
    DIR/index-train.npy                                data sets of real people: what every record shows (data/index.py)
    DIR/dataset_info.json, features.json               so that `tfds.builder_from_directory(DIR)` reads it too

A shard is written atomically, so an existing one is whole. All records of a capture lie in one shard. TensorFlow is
not used.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtgaze_jax import files
from rtgaze_jax.data.index import Index
from rtgaze_jax.data.record import SCHEMA_VERSION, Grid, Record, decode, fields
from rtgaze_jax.errors import FailureError, UserError

_WRITER_OPTIONS = "group_size:1,uncompressed"  # random access; images are compressed already


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a split."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a split is and holds. `shards` is empty while the split is being written."""

    name: str
    split: str
    settings: dict[str, Any]  # what it was made from: the same settings give the same bytes
    gazes: int
    views: int
    resolution: int
    left_out: tuple[int, ...] = ()  # people asked for that could not be rendered
    shards: tuple[Shard, ...] = ()
    schema: int = SCHEMA_VERSION
    absent: tuple[str, ...] = ()  # optional fields that the records lack
    index: str = ""  # file name of the index; "" where the records form a grid

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(shard.records for shard in self.shards)

    @property
    def grid(self) -> Grid:
        """Captures x gazes x views, of records that form a grid."""
        return Grid(self.records // (self.gazes * self.views), self.gazes, self.views)

    @property
    def identity(self) -> str:
        """One SHA-256 over the contents of the split."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """File name of a shard, as tensorflow-datasets wants it."""
    return f"{name}-{split}.array_record-{number:05d}-of-{count:05d}"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes DIR/manifest-SPLIT.json atomically."""
    counts = {"records": manifest.records} | ({} if manifest.index else {"captures": manifest.grid.captures})
    content = json.dumps(dataclasses.asdict(manifest) | counts, indent=1, sort_keys=True)
    files.write_bytes(directory / f"manifest-{manifest.split}.json", content.encode())


def find_manifest(directory: Path, split: str) -> Manifest | None:
    """The manifest of a split, finished or not; None where there is none. Raises UserError where it cannot be read."""
    path = directory / f"manifest-{split}.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA_VERSION:
            raise UserError(f"{path} has schema {content['schema']}, this version reads {SCHEMA_VERSION}: make it anew")
        # What has been added since has a default.
        known = {field.name: content[field.name] for field in dataclasses.fields(Manifest) if field.name in content}
        shards = tuple(Shard(**shard) for shard in known.pop("shards"))
        lists = {key: tuple(content.get(key, ())) for key in ("left_out", "absent")}
        return Manifest(**known | lists | {"shards": shards})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete the folder and make it anew") from error


def manifests(directory: str | Path) -> dict[str, Manifest]:
    """The finished splits of a directory, by name. Raises UserError where there are none."""
    directory = Path(directory)
    found = {}
    for path in sorted(directory.glob("manifest-*.json")):
        manifest = find_manifest(directory, path.stem.removeprefix("manifest-"))
        if manifest is not None and manifest.shards:
            found[manifest.split] = manifest
    if not found:
        raise UserError(
            f"{directory} holds no finished data set: make one with 'rtgaze data heads --out {directory} ...' or "
            "'rtgaze data prepare'"
        )
    return found


def only_split(directory: str | Path, split: str | None) -> str:
    """The split meant: the one named, or the only one there. Raises UserError where that is not clear."""
    there = list(manifests(directory))
    if split is None and len(there) == 1:
        return there[0]
    if split not in there:
        raise UserError(f"{directory} holds the splits {', '.join(there)}: choose one with --split")
    return split


class RecordSource:
    """Random access to the encoded records of a split (`rtgaze_jax.data.record.decode` turns them into arrays).

    Can be sent to other processes. Raises UserError where directory, split or a shard is missing.
    """

    def __init__(self, directory: str | Path, split: str):
        directory = Path(directory)
        self.manifest = manifests(directory)[only_split(directory, split)]
        needed = [shard.file for shard in self.manifest.shards] + [self.manifest.index] * bool(self.manifest.index)
        for name in needed:
            if not (directory / name).exists():
                raise UserError(f"{directory / name} is missing: run the 'rtgaze data' command that made it again")
        self.grid: Grid | Index
        self.grid = Index.load(directory / self.manifest.index) if self.manifest.index else self.manifest.grid
        pieces = [_Piece(str(directory / s.file), 0, s.records, s.records) for s in self.manifest.shards if s.records]
        self._source = _array_record().array_record_data_source.ArrayRecordDataSource(pieces)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            return parse(self._source[int(index)], self.manifest.absent)
        except Exception as error:  # damaged bytes make the reader or the parser fail in many ways
            raise ValueError(f"record {index} cannot be read: {error}") from error

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


def load_record(directory: str | Path, split: str | None, index: int) -> Record:
    """One decoded record. Raises UserError where there is none of this number, or it is damaged."""
    source = RecordSource(directory, only_split(directory, split))
    if not 0 <= index < len(source):
        raise UserError(f"there is no record {index}: {directory} has 0 to {len(source) - 1}")
    try:
        return decode(source[index])
    except ValueError as error:
        raise UserError(f"{error}: see 'rtgaze data check {directory}'") from error


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A file with a known number of records, in ArrayRecord's words."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def serialize(encoded: Mapping[str, Any], absent: tuple[str, ...] = ()) -> bytes:
    """An encoded record as a tf.Example; the same record gives the same bytes."""
    from tensorflow_datasets.proto import tf_example_pb2

    features = tfds_features(absent)
    example = tf_example_pb2.Example.FromString(features.serialize_example(features.encode_example(dict(encoded))))
    return example.SerializeToString(deterministic=True)  # the order of a protobuf map is random otherwise


def parse(example: bytes, absent: tuple[str, ...] = ()) -> Record:
    """The encoded record in a tf.Example."""
    import tensorflow_datasets as tfds

    skip = {key: tfds.decode.SkipDecoding() for key, field in fields(absent).items() if field.coding != "array"}
    return dict(tfds_features(absent).deserialize_example_np(example, decoders=skip))


def write_shard(path: Path, encoded_records: Iterable[Mapping[str, Any]], absent: tuple[str, ...] = ()) -> None:
    """Writes encoded records to one ArrayRecord file, atomically."""
    writer_class = _array_record().array_record_module.ArrayRecordWriter
    with files.atomic_path(path) as temporary:
        writer = writer_class(str(temporary), _WRITER_OPTIONS)
        for record in encoded_records:
            writer.write(serialize(record, absent))
        writer.close()


def read_shard(path: Path, absent: tuple[str, ...] = ()) -> list[Record]:
    """All encoded records of a file. Raises ValueError where it is damaged."""
    try:
        reader = _array_record().array_record_module.ArrayRecordReader(str(path))
        content = reader.read_all()
        reader.close()
        return [parse(example, absent) for example in content]
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_tfds_metadata(directory: Path, description: str) -> None:
    """Writes dataset_info.json and features.json for all finished splits of a directory."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    splits = manifests(directory)
    first = next(iter(splits.values()))
    name, absent = first.name, first.absent
    identity = DatasetIdentity(
        name=name, version=tfds.core.Version(f"{SCHEMA_VERSION}.0.0"), data_dir=str(directory), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds_features(absent), description=description)
    info.set_file_format("array_record")
    info.set_splits(tfds_splits(directory, splits.values()))
    info.write_to_directory(directory)


def tfds_splits(directory: Path, splits: Iterable[Manifest]) -> Any:
    """The splits as a tfds SplitDict."""
    import tensorflow_datasets as tfds

    return tfds.core.splits.SplitDict([
        tfds.core.SplitInfo(
            name=manifest.split,
            shard_lengths=[shard.records for shard in manifest.shards],
            num_bytes=sum(shard.bytes for shard in manifest.shards),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=directory, dataset_name=manifest.name, split=manifest.split, filetype_suffix="array_record"
            ),
        )
        for manifest in splits
    ])  # fmt: skip


@functools.cache
def tfds_features(absent: tuple[str, ...] = ()) -> Any:
    """The schema as a tfds FeaturesDict: encoded images, depth as 16-bit levels (see record.DEPTH_SCALE)."""
    import tensorflow_datasets as tfds

    def feature(field):
        match field.coding:
            case "image":  # PNG or JPEG
                return tfds.features.Image(shape=(None, None, 3))
            case "depth":
                return tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png", doc=field.doc)
            case "labels" | "mask":
                return tfds.features.Image(shape=(None, None, 1), encoding_format="png", doc=field.doc)
        shape = tuple(None if isinstance(size, str) else size for size in field.shape)
        return tfds.features.Tensor(shape=shape, dtype=np.dtype(field.dtype), doc=field.doc)

    return tfds.features.FeaturesDict({key: feature(field) for key, field in fields(absent).items()})


@functools.cache
def _array_record() -> Any:
    try:
        import array_record.python as package
        from array_record.python import array_record_data_source, array_record_module  # noqa: F401
    except ImportError as error:
        raise FailureError(f"data sets on disk need array_record: pip install 'rtgaze-jax[train]' ({error})") from error
    return package
