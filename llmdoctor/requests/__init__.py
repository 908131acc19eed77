"""Request and response files of engines and trainers."""
