"""Requests concern two jobs: how long and whether an answer is given (GEN), and from which distribution (SMP)."""

from __future__ import annotations

from llmdoctor.core.diagnostic import Diagnostic
from llmdoctor.gencfg.requests import check as generation
from llmdoctor.modeldir.jsonfile import JsonFile
from llmdoctor.modeldir.neighbours import Neighbours
from llmdoctor.modeldir.requests import Request, requests_in
from llmdoctor.sample import hidden


def check_file(file: JsonFile, neighbours: Neighbours) -> tuple[Diagnostic, ...]:
    """The findings in a JSON file that holds one request."""
    return check_requests(requests_in(file), neighbours)


def check_requests(requests: tuple[Request, ...], neighbours: Neighbours) -> tuple[Diagnostic, ...]:
    """The findings in the requests of a file."""
    return (*generation.check_requests(requests), *hidden.check_requests(requests, neighbours))
