"""The batches of stage mm, computed in this process or by a tf.data service."""

from collections.abc import Iterable, Iterator

import tensorflow as tf

from pipelines import batches
from pipelines.batches import service
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import amounts, networks, seeds, tuned_models


class ServiceLost(config.UserError):
    """The data service does not send the batches of stage mm."""


def check(settings: config.Tune, background_label: int | None):
    """Raise an error if the mix step cannot sample patches of these sizes and shares.

    Args:
        settings: settings of stage mm.
        background_label: id of the background class; None without one.

    Raises:
        config.ConfigError: names the wrong setting.
    """
    try:
        amounts.sampling(settings, background_label)
    except ValueError as error:
        raise config.ConfigError(f"Stage mm: {error}") from error


class Batches:
    """The data of stage mm, a function as `trainers.training.loop.Loop` takes it.

    Args:
        experiment: the settings. If `data.service` is set, the batches come from that service.
        runtime: the run, with its data set.
        pad_color: color outside of the images.
    """

    def __init__(self, experiment: config.Experiment, runtime: Runtime, pad_color):
        self.experiment, self.runtime, self.pad_color = experiment, runtime, pad_color
        self.feeds = []

    def __call__(self, start_step: int, share: batches.Share) -> Iterable[dict]:
        """Return one element per step from `start_step` on."""
        if self.experiment.data.service is None:
            return self.made_here(start_step, share)
        return self._served(start_step, share)

    def made_here(
        self, start_step: int | tf.Tensor, share: batches.Share, num_steps=None
    ) -> tf.data.Dataset:
        """Return the batches that this process computes: patches, or crops for pixel contrast.

        Args:
            start_step: the first step.
            share: the replica's share of each step.
            num_steps: the step after the last one; None for all batches of the stage.
        """
        experiment, settings = self.experiment, self.experiment.mm
        view = batches.View(
            crop=settings.crop,
            shorter_side=experiment.data.shorter_side,
            mirror=settings.mirror,
            pad_color=self.pad_color,
            rare_share=settings.rare_share,
        )
        order = batches.Order(
            num_images=settings.num_images,
            share=share,
            seed=seeds.data_seed(experiment.seed, "mm"),
            start_step=start_step,
            num_steps=settings.num_batches if num_steps is None else num_steps,
        )
        split = self.runtime.dataset.train.labelled()
        changes = amounts.of_stage(settings)
        if tuned_models.takes_crops(settings):
            return batches.crops(split, view, order, changes)
        background_label = networks.background_label(experiment, self.runtime.dataset.spec)
        patches = amounts.sampling(settings, background_label)
        return batches.patches(split, patches, view, order, changes)

    def _served(self, start_step, share) -> Iterator[dict]:
        """Yield the batches of the data service.

        Raises:
            ServiceLost: the service does not answer, or reports an error.
        """
        address = self.experiment.data.service
        if not self.feeds:
            self.runtime.log(
                f"mm: the data service {address} sends batches in the order in which they are "
                "ready, and skips the steps of a lost worker. Such a run cannot be repeated or "
                "continued exactly; a run without data.service can. The run stops if no batch "
                f"arrives within {self.experiment.timeout:g} seconds (setting timeout)."
            )
        feed = service.Feed(
            lambda step: self.made_here(step, share, step + 1),
            address,
            start_step=start_step,
            timeout=self.experiment.timeout,
        )
        self.feeds.append(feed)
        try:
            yield from feed
        except service.ServiceError as error:
            raise ServiceLost(f"Stage mm: {error}") from error

    def log_service(self):
        """Log the number of batches of the data service, if there was one."""
        for feed in self.feeds:
            self.runtime.log(
                f"mm: {feed.num_batches} batches came from the data service, {feed.num_late} of "
                f"them out of order; {feed.num_missing} steps were skipped."
            )
