"""The two levels of the compiler's one language: `op` says what, `loop` says how; `expr` is shared by both."""
