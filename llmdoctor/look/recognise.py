"""What a path is: a folder, a model in the hub cache, or a file."""

from __future__ import annotations

import os

from llmdoctor.look.types import Recognised


def recognise(path: str) -> Recognised:
    """Return what `path` is. Raises QuestionError if nothing of that name can be read."""
    if os.path.isdir(path):
        from llmdoctor.look.folders import recognise_folder

        return recognise_folder(path)
    if not os.path.lexists(path):
        from llmdoctor.look.folders import recognise_cached

        return recognise_cached(path)
    from llmdoctor.look.files import recognise_file

    return recognise_file(path)
