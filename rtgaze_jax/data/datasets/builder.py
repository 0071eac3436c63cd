"""Data sets of real people as tensorflow-datasets builders.

    import rtgaze_jax.data.datasets.eth_xgaze, tensorflow_datasets as tfds
    builder = tfds.builder("eth_xgaze/paper")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir="/data/eth-xgaze"))

Nothing is downloaded: the data sets must be asked for. `manual_dir` is the command's --source.
"""

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from rtgaze_jax.data import storage
from rtgaze_jax.data.datasets.prepare import Options, prepare
from rtgaze_jax.errors import UserError


@dataclasses.dataclass
class PreparedConfig(tfds.core.BuilderConfig):
    """The splits to make."""

    options: tuple[Options, ...] = ()
    absent: tuple[str, ...] = ("depth",)
    workers: int = os.cpu_count() or 1


class PreparedBuilder(tfds.core.dataset_builder.FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the builders share; NAME is the data set's."""

    NAME: ClassVar[str]
    VERSION = tfds.core.Version(f"{storage.SCHEMA_VERSION}.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask the authors for the data and give its folder as manual_dir (see docs/datasets)."
    url_infos: ClassVar[dict] = {}  # nothing is downloaded

    def __init__(self, **kwargs):
        super().__init__(**{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = storage.tfds_features(self.builder_config.absent)
        return tfds.core.DatasetInfo(builder=self, features=features, description=f"See docs/datasets/{self.NAME}.md.")

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        source = download_config and download_config.manual_dir
        if not source:
            raise UserError(f"{self.NAME} is not downloaded: give its folder as manual_dir")
        config, directory = self.builder_config, Path(self.data_dir)
        for options in config.options:
            prepare(self.NAME, Path(source), directory, options, workers=config.workers)
        self.info.set_splits(storage.tfds_splits(directory, storage.manifests(directory).values()))
