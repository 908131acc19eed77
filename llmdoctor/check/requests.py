"""Requests concern two jobs: how long and whether an answer is given (GEN), and from which distribution (SMP)."""

from __future__ import annotations

from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.finding import Finding
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.gencfg import request_findings as generation
from llmdoctor.requests.request_files import Request, requests_in
from llmdoctor.sample import file_findings as sampling


def check_file(file: JsonFile, linked: LinkedFiles) -> tuple[Finding, ...]:
    """The findings in a JSON file that holds one request."""
    return check_requests(requests_in(file), linked)


def check_requests(requests: tuple[Request, ...], linked: LinkedFiles) -> tuple[Finding, ...]:
    """The findings in the requests of a file."""
    return (*generation.check_requests(requests), *sampling.check_requests(requests, linked))
