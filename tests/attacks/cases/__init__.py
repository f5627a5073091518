"""Every attack, by what it goes for."""

from tests.attacks.case import Case
from tests.attacks.cases import answers, links, quotas, requests, rows, sharing, storms

ALL: tuple[Case, ...] = (
    *sharing.CASES,
    *requests.CASES,
    *answers.CASES,
    *links.CASES,
    *quotas.CASES,
    *rows.CASES,
    *storms.CASES,
)
