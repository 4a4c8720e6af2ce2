"""The step of an operation on a voucher as a Celery task."""

from tasks.steps import step

carry_out = step("voucher-operation", "vouchers.carry_out")
