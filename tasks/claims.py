"""The steps of a travel claim, in the order in which they are chained, and of its callback as Celery tasks."""

from tasks.steps import step

authorize = step("claim", "claims.authorize")
find_appointment = step("claim", "claims.find_appointment")
create_claim = step("claim", "claims.create_claim")
add_expenses = step("claim", "claims.add_expenses")
submit_claim = step("claim", "claims.submit_claim")
rollback = step("claim", "claims.rollback")
deliver = step("claim-callback", "claims.deliver")
