"""What a schedule of an op is predicted to cost: the compiler's own stages up to the scheduled kernel, then `cost.predict`."""

from __future__ import annotations

from tridsl.autotune.cost import Cost, predict
from tridsl.autotune.measure import Subject
from tridsl.backend import load_backend
from tridsl.pipeline import SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.steps import Schedule
from tridsl.structs import replace


class Predictor:
    """Predictions for the schedules of one subject; what does not depend on the schedule is done once."""

    def __init__(self, subject: Subject) -> None:
        """Raises TriError for what is wrong with the op whatever its schedule."""
        self._subject = subject
        self._build = Build(spec=subject.device.spec, backend=load_backend(subject.device.backend), schedule=(), facts=subject.facts)
        self._loops = run(subject.op, TO_KERNEL, self._build)

    def cost(self, steps: Schedule) -> Cost:
        """Raises TriError for a schedule that is not legal."""
        kernel = run(self._loops, SCHEDULE, replace(self._build, schedule=steps))
        return predict(kernel, self._build.spec, self._subject.sizes, threads=self._subject.threads)
