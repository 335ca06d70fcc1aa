"""Facts of chips: `spec` gives them a type, `chips/*.toml` the values with their sources, `intrinsics` the matrix instructions."""
