"""Finding better schedules: spaces, predicted costs, strategies, measurements, and the session that joins them."""
