"""The step of a text message as a Celery task."""

from tasks.steps import step

send_text = step("notification", "notifications.send_text")
