"""The batches of stage mm: made in this process, or by a tf.data service."""

from collections.abc import Iterable, Iterator

import tensorflow as tf

from pipelines import batches
from pipelines.batches import service
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import networks


class ServiceLost(config.UserError):
    """The data service does not give the batches of stage mm."""


def sampling(settings: config.Tune, background_label: int | None) -> batches.PatchSampling:
    """Return the record of how stage mm draws patches.

    Raises:
        ValueError: if a size or share is out of range.
    """
    return batches.PatchSampling(
        patches_per_image=settings.patches_per_image,
        min_size=settings.min_size,
        max_size=settings.max_size,
        patch_size=settings.patch_size,
        rule=settings.rule,
        background_label=background_label,
        background_share=settings.background_share,
        class_balanced=settings.class_balanced,
    )


def check(settings: config.Tune, background_label: int | None):
    """Refuses sizes and shares of patches that the mix step cannot follow, before any stage runs.

    Raises:
        config.ConfigError: says which.
    """
    try:
        sampling(settings, background_label)
    except ValueError as error:
        raise config.ConfigError(f"Stage mm: {error}") from error


class Batches:
    """The data of stage mm as `trainers.loop.Loop` takes it.

    Args:
        experiment: with `data.service` the batches come from there.
        runtime: its data set, and its console for what must be said of a service.
        pad_color: of what lies outside of the images.
    """

    def __init__(self, experiment: config.Experiment, runtime: Runtime, pad_color):
        self.experiment, self.runtime, self.pad_color = experiment, runtime, pad_color
        self.feeds = []

    def __call__(self, start_step: int, share: batches.Share) -> Iterable[dict]:
        """One element per step from `start_step` on."""
        if self.experiment.data.service is None:
            return self.made_here(start_step, share)
        return self._served(start_step, share)

    def made_here(
        self, start_step: int | tf.Tensor, share: batches.Share, num_steps=None
    ) -> tf.data.Dataset:
        """The batches up to step `num_steps`, by default all of the stage."""
        experiment, settings = self.experiment, self.experiment.mm
        background_label = networks.background_label(experiment, self.runtime.dataset.spec)
        view = batches.View(
            crop=settings.crop,
            shorter_side=experiment.data.shorter_side,
            mirror=settings.mirror,
            pad_color=self.pad_color,
        )
        order = batches.Order(
            num_images=settings.num_images,
            share=share,
            seed=experiment.seed,
            start_step=start_step,
            num_steps=settings.steps if num_steps is None else num_steps,
        )
        split = self.runtime.dataset.train.labelled()
        return batches.patches(split, sampling(settings, background_label), view, order)

    def _served(self, start_step, share) -> Iterator[dict]:
        """Batches of the data service.

        Raises:
            ServiceLost: no answer, or an error; says what to look at.
        """
        address = self.experiment.data.service
        if not self.feeds:
            self.runtime.log(
                f"mm: batches come from the data service {address} as they get ready; steps that a "
                "lost worker had begun never come. So a run cannot be repeated or continued "
                "exactly; without --data_service it can. A batch that does not come within "
                f"{self.experiment.timeout:g} seconds (--set timeout) ends the run."
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

    def tell(self):
        """Says what came from the service."""
        for feed in self.feeds:
            self.runtime.log(
                f"mm: {feed.num_batches} batches came from the data service, {feed.num_late} of "
                f"them out of order; {feed.num_missing} steps were passed over."
            )
