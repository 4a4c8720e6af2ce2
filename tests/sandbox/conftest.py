"""A running sandbox for every test, and callers that speak to it as the contract says."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
import requests

from sandbox import Sandbox

ICN = "1012667122V019349"
VISIT = {"appointmentDateTime": "2026-03-02T10:00:00Z", "facilityStationNumber": "983GC"}
TIMEOUT = 60


class Veteran:
    """Calls Travel Pay for one veteran; tokens are taken when first needed."""

    def __init__(self, sandbox: Sandbox, *, icn: str = ICN, product: int = 0) -> None:
        self.sandbox = sandbox
        self.icn = icn
        self.product = sandbox.credentials.products[product]
        self.correlation_id = str(uuid.uuid4())
        self.session = requests.Session()
        self.veis = self.btsss = ""

    def get_veis(self, **changes: str) -> requests.Response:
        known = self.sandbox.credentials
        form = {
            "client_id": known.client_id,
            "client_secret": known.client_secret,
            "client_type": "1",
            "grant_type": "client_credentials",
            "resource": known.resource,
        }
        url = f"{self.sandbox.url('travel-pay-auth')}/{known.tenant_id}/oauth2/token"
        headers = {"X-Correlation-ID": self.correlation_id}
        answer = self.session.post(url, data=form | changes, headers=headers, timeout=TIMEOUT)
        self.veis = answer.json().get("access_token", "") if answer.ok else self.veis
        return answer

    def get_btsss(self, **changes: Any) -> requests.Response:
        if not self.veis:
            self.get_veis()
        headers = {"BTSSS-API-Client-Number": changes.pop("client_number", self.product.client_number)}
        body = {"secret": self.product.secret, "icn": self.icn} | changes
        answer = self.send("POST", "api/v4/auth/system-access-token", json=body, headers=headers)
        self.btsss = (answer.json()["data"] or {}).get("accessToken", "") if answer.ok else self.btsss
        return answer

    def headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.veis}",
            "BTSSS-Access-Token": self.btsss,
            "X-Correlation-ID": self.correlation_id,
            "Ocp-Apim-Subscription-Key": self.sandbox.credentials.subscription_key,
        }

    def send(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {**self.headers(), **more.pop("headers", {})}
        url = f"{self.sandbox.url('travel-pay')}/{path}"
        more.setdefault("timeout", TIMEOUT)
        return self.session.request(method, url, headers=headers, **more)

    def call(self, method: str, path: str, json: Any = None, **more: Any) -> requests.Response:
        """A resource call, with tokens."""
        if not self.btsss:
            self.get_btsss()
        return self.send(method, path, **({} if json is None else {"json": json}), **more)

    def find(self, visit: dict[str, Any] = VISIT, **more: Any) -> requests.Response:
        return self.call("POST", "api/v3/appointments/find-or-add", visit, **more)

    def create(self, appointment_id: str, **more: Any) -> requests.Response:
        body = {"appointmentId": appointment_id, "claimName": "Travel Reimbursement", "claimantType": "Veteran"}
        return self.call("POST", "api/v3/claims", body, **more)

    def add(self, claim_id: str, **more: Any) -> requests.Response:
        body = {"claimId": claim_id, "dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"}
        return self.call("POST", "api/v3/expenses/mileage", body | more)

    def add_parking(self, claim_id: str, **more: Any) -> requests.Response:
        body = {"claimId": claim_id, "dateIncurred": "2026-03-02", "description": "Garage"}
        priced = {"costRequested": 12.5, "expenseType": "parking"}
        return self.call("POST", "api/v1/expenses/parking", body | priced | more)

    def submit(self, claim_id: str, **more: Any) -> requests.Response:
        return self.call("PATCH", f"api/v3/claims/{claim_id}/submit", **more)

    def read(self, claim_id: str) -> requests.Response:
        return self.call("GET", f"api/v3/claims/{claim_id}")

    def search(self, day: str = "2026-03-02", **more: Any) -> requests.Response:
        query = {"startDate": f"{day}T00:00:00Z", "endDate": f"{day}T23:59:59Z", "pageNumber": 1, "pageSize": 50}
        return self.call("GET", "api/v3/claims/search-by-appointment-date", params=query | more)

    def appointment_id(self, visit: dict[str, Any] = VISIT) -> str:
        return str(self.find(visit).json()["data"][0]["id"])

    def claim_id(self, visit: dict[str, Any] = VISIT) -> str:
        """A new claim for the visit."""
        return str(self.create(self.appointment_id(visit)).json()["data"]["claimId"])


class Texter:
    """Calls Notify."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()

    def headers(self, **changes: Any) -> dict[str, str]:
        known = self.sandbox.credentials
        secret = changes.pop("secret", known.notify_secret)
        claims = {"iss": known.notify_service_id, "iat": int(time.time())} | changes
        return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}

    def send(self, reference: str, *, headers: dict[str, str] | None = None, **changes: Any) -> requests.Response:
        product = self.sandbox.credentials.products[0]
        body = {
            "phone_number": "+12025550143",
            "template_id": product.templates["success"],
            "sms_sender_id": product.sms_sender_id,
            "reference": reference,
            "personalisation": {"claim_number": "3890", "appt_date": "Mar 02"},
        }
        body = {name: value for name, value in (body | changes).items() if value is not None}
        url = f"{self.sandbox.url('notify')}/v2/notifications/sms"
        return self.session.post(url, json=body, headers=headers or self.headers(), timeout=TIMEOUT)

    def find(self, reference: str) -> requests.Response:
        url = f"{self.sandbox.url('notify')}/v2/notifications"
        return self.session.get(url, params={"reference": reference}, headers=self.headers(), timeout=TIMEOUT)


CHARGE_REFERENCE = "XFPR0000000123"
DES, CMA = "/declarations/passengerdeclaration/v1", "/passengers/declarations/simpledeclaration/v1"


class Declarer:
    """Calls MDG."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()

    def body(self, charge: str = CHARGE_REFERENCE, acknowledgement: str | None = None, **more: Any) -> bytes:
        common = {"acknowledgementReference": acknowledgement or f"{charge}0", **more}
        detail = {"declarationHeader": {"chargeReference": charge}}
        return json.dumps({"simpleDeclarationRequest": {"requestCommon": common, "requestDetail": detail}}).encode()

    def headers(self, **changes: str | None) -> dict[str, str | bytes | None]:
        return {
            "Authorization": f"Bearer {self.sandbox.credentials.mdg_bearer_token}",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Date": "2026-11-20T18:09:30Z",
            "X-Correlation-ID": "d-7f6b2d1e",
            "X-Forwarded-Host": "MDTP",
            "User-Agent": "bc-passengers-declarations",
        } | {name.replace("_", "-"): value for name, value in changes.items()}

    def submit(
        self, body: bytes | None = None, *, path: str = DES, timeout: float = TIMEOUT, **headers: str | None
    ) -> requests.Response:
        """Header names with `_` for `-`; None leaves one out."""
        return self.session.post(
            self.sandbox.url("mdg") + path,
            data=self.body() if body is None else body,
            headers=self.headers(**headers),
            timeout=timeout,
            allow_redirects=False,
        )


class Newsagent:
    """Calls i-Movo for one subscription."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.subscription_id = "a2F5I000003KvWxUAK"

    def headers(self) -> dict[str, str | bytes]:
        key = self.sandbox.credentials.imovo_api_key
        return {"X-API-KEY": key, "X-Correlation-ID": "crm-77104", "Accept": "application/json"}

    def call(self, name: str, *, timeout: float = TIMEOUT, **query: Any) -> requests.Response:
        return self.session.get(
            f"{self.sandbox.url('imovo')}/Subscription/{name}",
            params={"SubscriptionId": self.subscription_id} | query,
            headers=self.headers(),
            timeout=timeout,
            allow_redirects=False,
        )

    def create(self, *, scheme: str = "Guardian7Day", **more: Any) -> Any:
        query = {"SchemeName": scheme, "StartDate": "2025-03-11"}
        return self.call("RequestSubscriptionVouchers", **query, **more).json()

    def get(self) -> Any:
        return self.call("GetSubscriptionVoucherDetails").json()

    def replace(self, type: str = "Both") -> Any:
        return self.call("ReplaceVoucherBySubscriptionId", SubscriptionType=type).json()

    def cancel(self, **more: str) -> Any:
        return self.call("CancelSubscriptionVoucher", **more).json()

    def set_holiday(self, start: str, end: str) -> Any:
        return self.call("SetHoliday", StartDate=start, ReactivationDate=end).json()

    def history(self, most: int = 20) -> Any:
        return self.call("SubscriptionRedemptionHistory", MaxLines=most).json()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for something that happens soon, however busy the machine is; fails when it does not."""

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "never happened"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def running() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    yield running
    running.reset()


@pytest.fixture
def veteran(sandbox: Sandbox) -> Iterator[Veteran]:
    with (found := Veteran(sandbox)).session:
        yield found


@pytest.fixture
def other(sandbox: Sandbox) -> Iterator[Veteran]:
    """Another veteran, of the other product."""
    with (found := Veteran(sandbox, icn="1013062086V794840", product=1)).session:
        yield found


@pytest.fixture
def texter(sandbox: Sandbox) -> Iterator[Texter]:
    with (found := Texter(sandbox)).session:
        yield found


@pytest.fixture
def declarer(sandbox: Sandbox) -> Iterator[Declarer]:
    with (found := Declarer(sandbox)).session:
        yield found


@pytest.fixture
def newsagent(sandbox: Sandbox) -> Iterator[Newsagent]:
    with (found := Newsagent(sandbox)).session:
        yield found
