"""Schedules as data (`steps`), and one file per verb that rewrites a `Kernel`; `apply` dispatches, `depend` judges legality."""
