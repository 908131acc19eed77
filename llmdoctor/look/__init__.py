"""`llmdoctor look` and `llmdoctor env`: what a path or a machine is."""
