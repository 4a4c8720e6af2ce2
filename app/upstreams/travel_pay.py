"""Travel Pay: the calls a claim makes, in the API's own verbs (contract 4.3), with both tokens seen to (5.1).

Every verb returns our values or raises `outcomes.Failed` (a `steps.Ended`) with its outcome, or passes on what stopped
the call before it was sent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from app import config, steps
from app.upstreams import http, outcomes
from app.upstreams import travel_pay_answers as answers
from app.upstreams.answers import Answer
from app.upstreams.travel_pay_access import Access, Gateway, gateway

T = TypeVar("T")
_PAGE_SIZE, _MOST_PAGES = 50, 100


class TravelPay:
    """Travel Pay on behalf of one veteran. Cheap to make, for one step; not for several threads.

    `changed` holds the columns of the claim that differ from what was passed in: store them, whatever the outcome.
    """

    def __init__(
        self,
        settings: config.TravelPay | Gateway,
        *,
        product: str,
        icn: str,
        work: steps.Work,
        btsss_token: str | None = None,
        veis_fingerprint: str | None = None,
    ) -> None:
        self._gateway = settings if isinstance(settings, Gateway) else gateway(settings)
        self._settings = self._gateway.settings
        self.product = product
        self.icn = icn
        self.work = work
        self._given = (btsss_token, veis_fingerprint)
        self._access = Access(self._gateway, self, btsss_token=btsss_token, veis_fingerprint=veis_fingerprint)

    @property
    def changed(self) -> dict[str, str | None]:
        now = (self._access.btsss_token, self._access.veis_fingerprint)
        return {} if now == self._given else {"btsss_token": now[0], "veis_fingerprint": now[1]}

    def authorize(self) -> None:
        """Obtain both tokens, the veteran's anew."""
        self._access.btsss_token = None
        self._access.headers()

    def find_or_add(
        self,
        date_time: str,
        station_number: str,
        *,
        type: str | None = None,
        complete: bool | None = None,
        name: str | None = None,
    ) -> list[answers.Appointment]:
        """The appointments of this wall-clock time and facility, in Travel Pay's order; it adds one that is missing."""
        body = {
            "appointmentDateTime": answers.wire_time(date_time),
            "facilityStationNumber": station_number,
            "appointmentType": type,
            "isComplete": complete,
            "appointmentName": name or None,
        }
        request = http.Request(
            call="find-or-add",
            method="POST",
            template=f"api/{self._version('find-or-add')}/appointments/find-or-add",
            json={key: value for key, value in body.items() if value is not None},
        )
        return self._send(request, answers.appointments)

    def create_claim(self, appointment_id: str) -> str:
        """Create the claim of an appointment; its id."""
        request = http.Request(
            call="create-claim",
            method="POST",
            template=f"api/{self._version('claims')}/claims",
            json={"appointmentId": appointment_id, "claimName": "Travel Reimbursement", "claimantType": "Veteran"},
            effect=0,
        )
        return self._send(request, answers.identified("claimId"))

    def read_claim(self, claim_id: str) -> answers.ClaimDetails:
        request = http.Request(
            call="read-claim",
            method="GET",
            template=f"api/{self._version('claims')}/claims/{{claimId}}",
            ids={"claimId": claim_id},
        )
        return self._send(request, answers.claim_details)

    def search(self, start: str, end: str) -> list[answers.ClaimSummary]:
        """The veteran's claims with a visit between two wall-clock times: all of them, or Failed."""
        found: list[answers.ClaimSummary] = []
        last: list[answers.ClaimSummary] = []
        for number in range(1, _MOST_PAGES + 1):
            page = self._search_page(answers.wire_time(start), answers.wire_time(end), number)
            if not page or page == last:
                return found
            found += page
            last = page
        raise outcomes.malformed(None, "The list of claims has no end.", True)

    def add_expense(
        self, claim_id: str, path: str, *, version_key: str, body: Mapping[str, Any], id_field: str, index: int
    ) -> str:
        """Add an expense; its id. `body` is as on the wire, without the claim's id; `index` is told to `intend`."""
        request = http.Request(
            call="add-expense",
            method="POST",
            template=f"api/{self._version(version_key)}/expenses/{path}",
            json={"claimId": claim_id, **body},
            effect=index,
        )
        return self._send(request, answers.identified(id_field))

    def delete_expense(self, path: str, version_key: str, expense_id: str) -> None:
        """Delete an expense; one that is gone already (404) counts as deleted."""
        template = f"api/{self._version(version_key)}/expenses/{path}/{{expenseId}}"
        self._delete("delete-expense", template, {"expenseId": expense_id})

    def delete_claim(self, claim_id: str) -> None:
        """Delete a claim, where TRAVEL_PAY_DELETE_CLAIM_PATH is set; a 404 counts as deleted."""
        self._delete("delete-claim", self._settings.delete_claim_path, {"claimId": claim_id})

    def submit(self, claim_id: str) -> str | None:
        """Submit the claim; the status Travel Pay gives it, if it tells. A status that says unfinished is Unknown."""
        request = http.Request(
            call="submit-claim",
            method="PATCH",
            template=f"api/{self._version('claims')}/claims/{{claimId}}/submit",
            ids={"claimId": claim_id},
            effect=0,
        )
        return self._send(request, answers.submitted)

    def _search_page(self, start: str, end: str, number: int) -> list[answers.ClaimSummary]:
        request = http.Request(
            call="search-claims",
            method="GET",
            template=f"api/{self._version('claims-search')}/claims/search-by-appointment-date",
            query={"startDate": start, "endDate": end, "pageNumber": number, "pageSize": _PAGE_SIZE},
        )
        return self._send(request, answers.claim_summaries)

    def _delete(self, call: str, template: str, ids: Mapping[str, str]) -> None:
        try:
            self._send(http.Request(call=call, method="DELETE", template=template, ids=ids), answers.anything)
        except outcomes.Failed as failed:
            if failed.status != 404:
                raise

    def _version(self, key: str) -> str:
        return self._settings.versions[key]

    def _send(self, request: http.Request, understand: Callable[[Answer], T]) -> T:
        """One call; after a 401 or 409 that is about tokens they are renewed and it is made once more."""
        try:
            return self._send_once(request, understand)
        except outcomes.Failed as failed:
            if not _refused_token(failed):
                raise
            if failed.status == 401:
                self._access.renew_all("401")
            else:
                self._access.renew_own("409")
        try:
            return self._send_once(request, understand)
        except outcomes.Failed as failed:
            if not _refused_token(failed):
                raise
            what = outcomes.failure("token-refused", failed.status or 401, failed.message)
            raise failed.instead(steps.Rejected(failure=what), status=failed.status) from failed

    def _send_once(self, request: http.Request, understand: Callable[[Answer], T]) -> T:
        complete = dataclasses.replace(
            request,
            headers=self._access.headers(),
            connect=self._settings.connect_timeout,
            read=self._settings.read_timeout,
        )
        return self._gateway.api.send(self.work, complete, understand)


def _refused_token(failed: outcomes.Failed) -> bool:
    """Whether a resource call was refused for its tokens: 401, or a 409 that does not speak of the claim itself."""
    if failed.status == 409:
        return not answers.is_duplicate(failed) and not answers.is_already_submitted(failed)
    return failed.status == 401
