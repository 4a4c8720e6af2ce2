"""Travel Pay: system tokens, appointments, claims and expenses, under any base path.

Whose call it is comes from the BTSSS token; nobody sees another veteran's appointments or claims.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Refusal, Request, json_answer
from sandbox.tokens import BtsssToken, Tokens
from sandbox.turn import Call
from sandbox.upstreams import travel_pay_faults as own_faults
from sandbox.upstreams.travel_pay_book import Book, Claim
from sandbox.upstreams.travel_pay_shapes import (
    ICN,
    appointment_of,
    body_of,
    coded,
    date_time,
    envelope,
    error,
    expense_of,
    refuse,
)
from sandbox.world import World

ROUTES: tuple[tuple[str, str, str, str], ...] = (
    ("system-token", "POST", r"auth/system-access-token", "_system_token"),
    ("find-or-add", "POST", r"appointments/find-or-add", "_find_or_add"),
    ("create-claim", "POST", r"claims", "_create_claim"),
    ("search-claims", "GET", r"claims/search-by-appointment-date", "_search_claims"),
    ("read-claim", "GET", r"claims/(?P<claim_id>[^/]+)", "_read_claim"),
    ("add-expense", "POST", r"expenses/(?P<type>[^/]+)", "_add_expense"),
    ("delete-expense", "DELETE", r"expenses/(?P<type>[^/]+)/(?P<expense_id>[^/]+)", "_delete_expense"),
    ("submit-claim", "PATCH", r"claims/(?P<claim_id>[^/]+)/submit", "_submit_claim"),
    ("delete-claim", "DELETE", r"claims/(?P<claim_id>[^/]+)", "_delete_claim"),
)
DUPLICATE = "Validation failed: A claim has already been created for this appointment."
NO_EXPENSES = "Validation failed: The claim does not have any expenses."
CONTACT = "The contact of the access token does not match."
LISTS = ("find-or-add", "search-claims")
PAGE_SIZE = 50


class TravelPay:
    """Speaks `{any base path}/api/v{n}/...` as ROUTES says."""

    name = "travel-pay"
    calls: tuple[str, ...] = tuple(name for name, *_ in ROUTES)

    def __init__(self, world: World, tokens: Tokens) -> None:
        self.world = world
        self.tokens = tokens
        self.book = Book()
        self.faults: Mapping[str, Kind] = own_faults.kinds(self)
        self._routes: list[tuple[str, str, re.Pattern[str], Callable[..., Answer]]] = [
            (name, method, re.compile(rf"(?:/.*)?/api/v[0-9]+/{path}"), getattr(self, perform))
            for name, method, path, perform in ROUTES
        ]

    def route(self, request: Request) -> Call | None:
        for name, method, path, perform in self._routes:
            if request.method == method and (found := path.fullmatch(request.path)):
                return Call(name, perform, found.groupdict())
        return None

    def traits(self, call: Call, request: Request) -> Mapping[str, Any]:
        body = request.members()
        token = self.tokens.btsss(request.header("BTSSS-Access-Token") or "")
        found: dict[str, Any] = {"icn": token.icn, "product": token.product} if token else {}
        claim = self.book.claim(call.ids.get("claim_id") or body.get("claimId"))
        if claim is not None:
            found["claimId"] = claim.id
        visit = claim.appointment if claim else self.book.appointment(body.get("appointmentId"))
        if visit is not None:
            found |= {"appointmentDateTime": visit.date_time, "station": visit.station, "appointmentId": visit.id}
        if "facilityStationNumber" in body:
            found["station"] = body["facilityStationNumber"]
        return found

    def error(self, status: int, message: str) -> Answer:
        return error(status, message)

    def empty(self, call: str, _request: Request) -> Answer:
        return envelope([] if call in LISTS else {})

    def reset(self) -> None:
        self.book = Book()
        self.tokens.clear()

    def _gateway(self, request: Request) -> str:
        """The VEIS token of a call that the gateway lets through. Raises Refusal."""
        known = self.world.credentials
        plain, e, s = (request.header(f"Ocp-Apim-Subscription-Key{end}") for end in ("", "-E", "-S"))
        if plain != known.subscription_key and (e, s) != (known.subscription_key_e, known.subscription_key_s):
            said = "Access denied due to missing or invalid subscription key."
            raise Refusal(json_answer(401, {"statusCode": 401, "message": said}))
        scheme, _, token = (request.header("Authorization") or "").partition(" ")
        if scheme != "Bearer" or not self.tokens.veis_lives(token):
            said = "The access token is missing, expired or unknown."
            raise Refusal(json_answer(401, {"error": "invalid_token", "error_description": said}))
        if not request.correlation_id:
            raise refuse(400, "Validation failed: The X-Correlation-ID header is required.")
        return token

    def _veteran(self, request: Request) -> BtsssToken:
        """Whose resource call it is. Raises Refusal: 401 without a known token, 409 under another VEIS token."""
        veis = self._gateway(request)
        token = self.tokens.btsss(request.header("BTSSS-Access-Token") or "")
        if token is None:
            raise refuse(401, "Unauthorized")
        if token.veis != veis:
            raise refuse(409, CONTACT)
        return token

    def _claim(self, request: Request, id: Any) -> Claim:
        claim = self.book.claim(id, self._veteran(request).icn)
        if claim is None:
            raise refuse(404, "Claim not found")
        return claim

    def _record(self, request: Request, kind: str, key: dict[str, Any], *, id: str, **more: Any) -> None:
        self.world.ledger.record(kind, key, id=id, correlation_id=request.correlation_id, **more)

    def _system_token(self, request: Request) -> Answer:
        veis = self._gateway(request)
        body = body_of(request, required={"secret", "icn"})
        product = self.world.credentials.product(body["secret"], request.header("BTSSS-API-Client-Number"))
        if product is None:
            raise refuse(403, "The secret and the client number do not belong together.")
        if not ICN.fullmatch(str(body["icn"])):
            raise refuse(400, "Validation failed: Invalid ICN.")
        token = self.tokens.mint_btsss(veis=veis, icn=body["icn"], product=product.name)
        key = {"icn": body["icn"], "product": product.name, "for_correlation_id": request.correlation_id}
        self._record(request, "btsss_mints", key, id=token)
        return envelope({"accessToken": token}, correlation_id=request.correlation_id)

    def _find_or_add(self, request: Request) -> Answer:
        icn = self._veteran(request).icn
        station, at = appointment_of(request)
        appointment, is_new = self.book.find_or_add(icn, station, at)
        if is_new:
            key = {"icn": icn, "station": station, "appointmentDateTime": at}
            self._record(request, "appointments", key, id=appointment.id)
        return self._list(request, [appointment.shown()])

    def _list(self, request: Request, found: list[dict[str, Any]], *, page: int = 1, size: int = PAGE_SIZE) -> Answer:
        shown = found[(page - 1) * size : page * size]
        paging: dict[str, Any] = {"pageNumber": page, "pageSize": size, "totalRecordCount": len(found)}
        return envelope(shown, correlation_id=request.correlation_id, **paging)

    def _create_claim(self, request: Request) -> Answer:
        icn = self._veteran(request).icn
        body = body_of(request, required={"appointmentId", "claimName", "claimantType"})
        appointment = self.book.appointment(body["appointmentId"], icn)
        if appointment is None:
            raise refuse(400, "Invalid appointment ID")
        if (body["claimName"], body["claimantType"]) != ("Travel Reimbursement", "Veteran"):
            raise refuse(400, "Validation failed: Invalid claim name or claimant type.")
        if appointment.claim is not None:
            raise refuse(400, DUPLICATE)
        claim = self.book.add_claim(appointment)
        key = {"icn": icn, "station": appointment.station, "appointmentDateTime": appointment.date_time}
        ids = {"claimId": claim.id, "claimNumber": claim.number, "appointmentId": appointment.id}
        self._record(request, "claims", key, id=claim.id, **ids)
        return envelope({"claimId": claim.id}, "Claim created successfully.", correlation_id=request.correlation_id)

    def _read_claim(self, request: Request, claim_id: str) -> Answer:
        return envelope(self._claim(request, claim_id).details(), correlation_id=request.correlation_id)

    def _search_claims(self, request: Request) -> Answer:
        icn, asked = self._veteran(request).icn, request.arguments
        start, end = date_time(asked.get("startDate")), date_time(asked.get("endDate"))
        page, size = asked.get("pageNumber", "1"), asked.get("pageSize", str(PAGE_SIZE))
        if not (page.isdigit() and size.isdigit() and int(page) > 0 and 0 < int(size) <= 100):
            raise refuse(400, "Validation failed: Invalid paging.")
        found = [one.summary() for one in self.book.claims_between(icn, start, end)]
        return self._list(request, found, page=int(page), size=int(size))

    def _add_expense(self, request: Request, type: str) -> Answer:
        self._veteran(request)
        body = expense_of(request, type)
        claim = self._claim(request, body["claimId"])
        if not claim.is_unfinished:
            raise refuse(400, "Validation failed: Expenses cannot be added to a submitted claim.")
        fields = {name: value for name, value in body.items() if name != "expenseReceipt"}
        expense = self.book.add_expense(claim, type, fields)
        key = {"icn": claim.appointment.icn, "type": type, "costRequested": None} | fields
        del key["expenseType" if type != "mileage" else "tripType"]
        self._record(request, "expenses", dict(sorted(key.items())), id=expense.id, expenseId=expense.id)
        name = "expenseId" if type == "mileage" else "id"
        return envelope({name: expense.id}, "Expense added successfully.", correlation_id=request.correlation_id)

    def _delete_expense(self, request: Request, type: str, expense_id: str) -> Answer:
        icn = self._veteran(request).icn
        found = self.book.expense(expense_id, icn)
        if found is None or found[1].type != type:
            raise refuse(404, "Expense not found")
        claim, expense = found
        if not claim.is_unfinished:
            raise refuse(400, "Validation failed: The claim has already been submitted.")
        self.book.remove_expense(claim, expense)
        key = {"icn": icn, "what": "expense", "claimId": claim.id, "expenseId": expense.id, "type": type}
        self._record(request, "deletions", key, id=expense.id)
        return envelope({"id": expense.id}, "Expense deleted successfully.", correlation_id=request.correlation_id)

    def _submit_claim(self, request: Request, claim_id: str) -> Answer:
        claim = self._claim(request, claim_id)
        if not claim.is_unfinished:
            raise coded(400, "CLAIM_ALREADY_SUBMITTED", "Claim has already been submitted")
        if not claim.expenses:
            raise refuse(400, NO_EXPENSES)
        claim.touch("ClaimSubmitted")
        shown = claim.summary()
        key = {"icn": claim.appointment.icn, "claimId": claim.id, "claimNumber": claim.number}
        self._record(request, "submissions", key, id=claim.id)
        times = {name: shown[name] for name in ("createdOn", "modifiedOn")}
        data = {"claimId": claim.id, "status": claim.status, **times}
        return envelope(data, "Claim submitted successfully.", correlation_id=request.correlation_id)

    def _delete_claim(self, request: Request, claim_id: str) -> Answer:
        if not self.world.settings.claim_delete:
            raise refuse(405, "Method Not Allowed")
        claim = self._claim(request, claim_id)
        if not claim.is_unfinished:
            raise refuse(400, "Validation failed: A submitted claim cannot be deleted.")
        self.book.remove_claim(claim)
        key = {"icn": claim.appointment.icn, "what": "claim", "claimId": claim.id}
        self._record(request, "deletions", key, id=claim.id)
        return envelope({}, "Claim deleted successfully.", correlation_id=request.correlation_id)
