"""Every metric, by the name its contract gives it.

Counters and histograms add up over the processes of a host when PROMETHEUS_MULTIPROC_DIR is set; a gauge shows what was
written last. `product` is a label of every metric of travel claims but `silent_failure`. Labels never hold ids.
"""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 120, float("inf"))
_PATIENT = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400, float("inf"))
_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, float("inf"))


def _gauge(name: str, says: str, labels: tuple[str, ...] = ()) -> Gauge:
    return Gauge(name, says, labels, multiprocess_mode="mostrecent")


# Travel claims (contract, section 7).
claims_accepted = Counter("claims_accepted", "Claims accepted.", ["product"])
claims_refused = Counter("claims_refused", "Faults of refused bodies.", ["product", "code"])
claims_outcome = Counter(
    "claims_outcome", "Claims that became final, by their text's template.", ["product", "outcome"]
)
claims_step = Counter("claims_step", "Ends of steps.", ["product", "step", "outcome"])
claims_step_errors = Counter(
    "claims_step_errors", "Failed calls of steps.", ["product", "step", "error_type", "source"]
)
claims_step_seconds = Histogram(
    "claims_step_seconds", "Duration of a verb of a step.", ["product", "step", "verb"], buckets=_SLOW
)
claims_in_doubt = Counter(
    "claims_in_doubt", "Calls of unknown outcome, by how the doubt ended.", ["product", "step", "result"]
)
claims_rollback = Counter("claims_rollback", "Rollbacks that ended.", ["product", "result"])
claims_veis_mints = Counter("claims_veis_mints", "VEIS tokens minted.", ["product"])
claims_token_renewals = Counter(
    "claims_token_renewals", "Tokens renewed before their time.", ["product", "kind", "reason"]
)
claims_notify = Counter("claims_notify", "Fates of text messages.", ["product", "template", "result"])
claims_notify_receipts = Counter("claims_notify_receipts", "Delivery receipts.", ["product", "status", "known"])
claims_callbacks = Counter("claims_callbacks", "Outcome callbacks that ended.", ["product", "result"])
silent_failure = Counter("silent_failure", "Bad news that did not reach the veteran.", ["service", "function"])
claims_state = _gauge("claims_state", "Claims by state.", ("product", "state"))
claims_oldest_due_seconds = _gauge("claims_oldest_due_seconds", "Age of the oldest due claim.", ("product", "state"))

# HTTP.
http_requests = Counter("http_requests", "Requests answered.", ["route", "method", "status"])
http_request_seconds = Histogram("http_request_seconds", "Duration of a request.", ["route", "method"], buckets=_QUICK)

# The engine.
engine_steps = Counter("engine_steps", "Verbs run.", ["kind", "step", "verb", "outcome"])
engine_taken_away = Counter("engine_taken_away", "Leases taken from a dead or slow holder.", ["reason"])
engine_poisoned = Counter("engine_poisoned", "Workflows failed because their holders kept dying.", ["kind"])
engine_dispatched = Counter("engine_dispatched", "Workflows handed to the broker.", ["kind"])
engine_dispatch_failures = Counter("engine_dispatch_failures", "Messages that the broker did not take.")

# Upstreams.
upstream_calls = Counter("upstream_calls", "Calls made.", ["upstream", "call", "outcome"])
upstream_call_seconds = Histogram("upstream_call_seconds", "Duration of a call.", ["upstream", "call"], buckets=_SLOW)
upstream_not_sent = Counter("upstream_not_sent", "Calls held back.", ["upstream", "reason"])
upstream_breaker_open = _gauge("upstream_breaker_open", "1 while the breaker is open.", ("upstream",))
redis_away = Counter("redis_away", "Times a process went on without Redis.")

# Passenger declarations (contract, section 7).
declarations_accepted = Counter("declarations_accepted", "Declarations accepted.", ["route"])
declarations_refused = Counter("declarations_refused", "Faults of refused bodies.", ["code"])
declarations_payment_notices = Counter("declarations_payment_notices", "Payment notices.", ["status", "result"])
declarations_late_payments = Counter("declarations_late_payments", "Payments for expired declarations.")
declarations_attempts = Counter("declarations_attempts", "Attempts to submit.", ["outcome", "error"])
declarations_payment_timeouts = Counter("declarations_payment_timeouts", "Payments that did not come.", ["action"])
declarations_paid_to_submitted_seconds = Histogram(
    "declarations_paid_to_submitted_seconds", "From the payment until MDG took it.", buckets=_PATIENT
)
declarations_replays = Counter("declarations_replays", "Failed submissions sent again.", ["trigger"])
declarations_erased = Counter("declarations_erased", "Declarations whose personal data were erased.")
declarations_state = _gauge("declarations_state", "Declarations by state.", ("state",))
declarations_oldest_unsent_seconds = _gauge("declarations_oldest_unsent_seconds", "Age of the oldest paid, unsent one.")
declarations_oldest_failed_seconds = _gauge("declarations_oldest_failed_seconds", "Age of the oldest failed one.")
declarations_overdue = _gauge("declarations_overdue", "Paid ones that should have been sent by now.")
declarations_mdg_odd_success = Counter("declarations_mdg_odd_success", "Successes other than 204.", ["status"])
mdg_request_seconds = Histogram("mdg_request_seconds", "Duration of a call, by its answer.", ["status"], buckets=_SLOW)
mdg_breaker_state = _gauge("mdg_breaker_state", "The breaker: 0 closed, 1 probing, 2 open.")
mdg_alarm = _gauge("mdg_alarm", "1 while the latest answers of MDG call for people.", ("kind",))

# Digital vouchers (contract, section 7).
voucher_requests = Counter("voucher_requests", "Requests answered.", ["route", "status"])
voucher_operations = Counter("voucher_operations", "Operations that ended.", ["kind", "outcome_code"])
voucher_operation_seconds = Histogram(
    "voucher_operation_seconds", "From accepted to ended.", ["kind"], buckets=_PATIENT
)
voucher_operations_open = _gauge("voucher_operations_open", "Unfinished operations by state.", ("kind", "state"))
voucher_oldest_open_seconds = _gauge("voucher_oldest_open_seconds", "Age of the oldest unfinished operation.")
voucher_replacements_refused = Counter("voucher_replacements_refused", "Replacements that the day rule refused.")
voucher_joined = Counter("voucher_joined", "Requests that joined an unfinished operation.", ["kind"])
voucher_drift = Counter("voucher_drift", "Records that turned out to be wrong.", ["reason"])
voucher_waiting_requests = Gauge(
    "voucher_waiting_requests", "Requests that wait for an outcome.", multiprocess_mode="livesum"
)
imovo_calls = Counter("imovo_calls", "Calls made.", ["call", "class", "code"])
imovo_call_seconds = Histogram("imovo_call_seconds", "Duration of a call.", ["call"], buckets=_SLOW)
imovo_breaker_open = _gauge("imovo_breaker_open", "1 while the breaker is open.")


def render() -> tuple[bytes, str]:
    """The exposition and its content type: of all processes of the host where they share a directory, else of this."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # PROMETHEUS_MULTIPROC_DIR is not set, or is no directory
        registry = REGISTRY
    return generate_latest(registry), CONTENT_TYPE_LATEST
