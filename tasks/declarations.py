"""The step of a paid declaration as a Celery task."""

from tasks.steps import step

submit = step("declaration", "declarations.submit")
