"""Every line of business, by the kind of its workflows."""

from collections.abc import Mapping

from app.flows import callbacks, claims, declarations, notifications, vouchers
from app.flows.flow import Flow

FLOWS: Mapping[str, Flow] = {
    flow.machine.kind: flow
    for flow in (claims.FLOW, notifications.FLOW, callbacks.FLOW, declarations.FLOW, vouchers.FLOW)
}
