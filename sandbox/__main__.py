"""`python -m sandbox`: the upstreams of every line on consecutive ports, until SIGTERM or SIGINT.

    SANDBOX_PORT   first port (8900): travel-pay-auth; then travel-pay (8901), notify (8902),
                   mdg (8903), imovo (8904)
    SANDBOX_HOST   address to listen on (127.0.0.1)
    SANDBOX_RECEIPTS_URL   when set, Notify posts a `delivered` receipt there for every text

The accepted credentials are `sandbox.credentials.Credentials`; the application's own variables (`TRAVEL_PAY_TENANT_ID`,
`NOTIFY_API_KEY`, `MDG_BEARER_TOKEN`, ...), where set, take the place of its defaults.

Control, on every port (the first one is the usual one); JSON in and out, 400 says what is allowed:

    GET    /_/                page for people
    GET    /_/ledger          effects, by kind, each with `count`; ?correlation_id=
    GET    /_/calls           requests received, the exact body as body_text and body_sha256, and their answers;
                              ?upstream= ?call= ?correlation_id= ?after=<number> ?limit=<last n>
    POST   /_/faults          set a fault; GET lists them, DELETE clears them, DELETE /_/faults/{id} clears one
    POST   /_/listeners       {"upstream": "notify", "open": false}: connection refused until opened again; GET lists
    POST   /_/settings        {"claim_delete": true, "veis_lifetime": 3600, "receipts": {"callback_url": "http://...",
                              "token": null, "statuses": ["delivered"], "delay": 0.5, "repeat": 1, "early": false}}
    POST   /_/reset           everything back to the start; calls under way are dropped, late effects never happen

A fault: {"call": "<name>" or "*", "fault": "<name>", "upstream"?, "times"?: next n calls, "probability"?: 0 to 1,
"seed"?, "match"?: {...}} and the fault's parameters; neither times nor probability = always. All matching `delay`
faults are slept through, then at most one other is played: `times` before `probability` before always, then the oldest.
`match` compares icn, product, correlation_id, appointmentDateTime (to the minute), station, appointmentId, claimId,
expenseId, type, phone, reference, chargeReference, acknowledgementReference and any member of the body or query
(SubscriptionId, ...).

Calls: veis-token | system-token find-or-add create-claim read-claim search-claims add-expense delete-expense
submit-claim delete-claim | send-sms find-sms | submit-declaration | create-voucher get-voucher replace-voucher
cancel-voucher set-holiday redemption-history

    delay            seconds=1, max_seconds (then between the two); then the call as usual
    delay-after      effect, then the answer seconds=1 later; status and what goes with it: as at drip
    status           status=500, body (text or JSON) or message (in the upstream's shape), headers, effect=false
    html             status=502, message or body, effect=false
    refuse-401       message; 401 in the upstream's shape
    contact-409      message; Travel Pay only
    drip             the answer byte by byte, seconds=1 apart, max_seconds (then the rest at once), then closed; the
                     call's own answer with its effect or, with status, what body, message, headers, effect=true say
    broken-off       status line and headers, then half of the body, then closed; the rest as at drip
    garbage          body (text) in place of HTTP, then closed, effect=false
    redirect         status=307, location (null: the very same address), effect=false
    altered          the success with members={...} in place of its own and without=[...], effect=true; no list, another
                     id, a flag that is missing or not boolean: {"members": {"successfulRequest": "true"}}
    rate-limit       seconds=60 (Ratelimit-Reset), limit=60, retry_after, message; 429
    remaining-zero   seconds=60, limit=60; a success that announces the limit as used up
    drop-before      connection closed without effect
    drop-after       effect, then connection closed without answer
    hang-before      no answer for seconds=120, no effect, then closed
    hang-after       effect, no answer for seconds=120, then closed
    reset            RST instead of an orderly close, effect=false
    late             dropped now (or status, body, message, headers now); the effect happens seconds=1 later
    malformed-json   200 with cut-off JSON, effect=true
    missing-field    the success without its ids, codes or tokens, effect=true
    wrong-shape      200 with body={"result": "ok"}, effect=true
    success-false    200 with success false and inner status=500 (null: none), message, effect=false; Travel Pay only
    token-absent     200 without token; veis-token, system-token
    expires-in       token that lives seconds=60, form="text" | "number" | "absent"; veis-token
    empty-list       200 with nothing listed, effect=false; find-or-add, search-claims, find-sms, create-voucher,
                     get-voucher, replace-voucher, redemption-history
    cancelled-first  a cancelled appointment of the same minute first; find-or-add
    foreign-claim    the appointment has a claim made elsewhere: claim_number, claim_status; find-or-add, create-claim
    duplicate        status=400, message; refused as duplicate without effect; create-claim
    claim-status     claim_status="Denied" shown instead; read-claim, search-claims, submit-claim
    refused          flag false with texts=[...] and status=200, effect=false; i-Movo only
    inactive-only    the success with codes of inactive types alone, effect=true; create-, get-, replace-voucher
    kind-missing     the success without the active kind="letter" | "card", effect=true; create-, get-, replace-voucher
    same-codes       the success with the codes from before, effect=true; replace-voucher
    half-replaced    only kind="card" | "letter" is replaced; then the success, or lost=true: closed without answer, or
                     texts=[...]: refused; replace-voucher
    foreign-voucher  the subscription has a live voucher made elsewhere: scheme, card_code, letter_code (null: fresh),
                     holidays=[["2025-04-01", "2025-04-08"]] (may be running); then the call as usual; i-Movo only
"""

import argparse
import os
import signal
import sys
import threading

from sandbox.credentials import Credentials
from sandbox.sandbox import PortTaken, Sandbox
from sandbox.settings import Receipts, Settings

_AsWritten = argparse.RawDescriptionHelpFormatter


def main() -> int:
    told = argparse.ArgumentParser("python -m sandbox", description=__doc__, formatter_class=_AsWritten)
    told.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    port = os.environ.get("SANDBOX_PORT") or "8900"
    if not port.isdigit() or int(port) > 65_000:
        return _failed(f"SANDBOX_PORT must be a port number, not {port!r}")
    sandbox = Sandbox(
        port=int(port),
        host=os.environ.get("SANDBOX_HOST") or "127.0.0.1",
        credentials=Credentials.from_env(os.environ),
        settings=Settings(receipts=Receipts(callback_url=os.environ.get("SANDBOX_RECEIPTS_URL") or None)),
    )
    try:
        sandbox.start()
    except PortTaken as error:
        return _failed(f"{error}; SANDBOX_PORT names the first of {len(sandbox.listeners)} ports to use instead")
    lines = [f"{'control':<16} {sandbox.url('control')}/\n"]
    lines += [f"{name:<16} {sandbox.url(name)}\n" for name in sandbox.listeners]
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    stopped.wait()
    sandbox.stop()
    return 0


def _failed(why: str) -> int:
    sys.stderr.write(f"sandbox: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
