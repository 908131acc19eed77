"""The exit codes of every command."""

OK = 0
FOUND = 1  # findings at or above --fail-on; a difference, for `diff` and `compare`
REFUSED = 2  # the question could not be answered
NOTHING = 3  # there was nothing to check
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT
