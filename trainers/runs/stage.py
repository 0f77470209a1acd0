"""The facts of a stage; the table of stages is `trainers.stages.STAGES`."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a run that leaves files in a folder of its own.

    Attributes:
        name: of the stage, and of its folder.
        sections: the sections of the settings that decide what it writes, besides the settings of
            all stages (data, network, the pretext task, precision, seed).
        run: function(experiment, runtime) -> dict of results. It may set "seconds" itself, because
            it continued an earlier run.
        needs: the stage whose files it reads; None if it needs no other stage.
        reads: further stages whose files it reads where the run has them.
        trains: whether all replicas run it; the chief alone runs the other stages.
        is_compared: whether the variant without M&M has this stage as well.
        shows_images: whether its files depend on the evaluation split.
        of_ensembles: whether an ensemble of finished runs has it.
        is_usual: whether `--stage=all` runs it.
    """

    name: str
    sections: tuple[str, ...]
    run: Callable
    needs: str | None = None
    reads: tuple[str, ...] = ()
    trains: bool = False
    is_compared: bool = False
    shows_images: bool = False
    of_ensembles: bool = False
    is_usual: bool = True
