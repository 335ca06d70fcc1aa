"""`tridsl bench`: us and our peers in one process, on the same arrays, in turn, after the answers were checked.

`cases` says what is measured, `peers` who else can do it, `peaks` what the machine can do, `sampling` how time is taken.
"""
