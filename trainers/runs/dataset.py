"""The data set of a run."""

from pipelines import datasets
from trainers import config


def load_dataset(data: config.Data) -> datasets.Dataset:
    """Load the data set and select the part that the settings ask for.

    Raises:
        config.ConfigError: the data set is missing or not usable; the message names the fix.
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
