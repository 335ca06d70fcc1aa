"""Search over schedules and placements: spaces, cost, measuring, prediction. It only produces `Schedule`s and placements."""
