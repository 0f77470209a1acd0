"""The data set of a run."""

from pipelines import datasets
from trainers import config


def load_dataset(data: config.Data) -> datasets.Dataset:
    """The data set and the part of it that is asked for.

    Raises:
        config.ConfigError: it is not there or not usable; the message says what to do.
    """
    try:
        dataset = datasets.load(
            data.dataset,
            data_dir=data.data_dir,
            train_split=data.train_split,
            eval_split=data.eval_split,
            max_unreadable=data.max_unreadable,
            void_value=data.void_value,
        )
        return datasets.select(dataset, data.num_train_images, data.holdout)
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error
