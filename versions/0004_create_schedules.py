"""create schedules

Revision ID: 0004
Revises:
Schema: schedules
Create Date: 2026-11-22 09:00:03+00:00
"""

from mongover import Operations

revision = "0004"
down_revision = None
schema = "schedules"
depends_on = ("0001", "0002", "0003")


def upgrade(op: Operations) -> None:
    op.create_collection("schedules")
    op.create_indexes(
        "schedules",
        [
            "scheduledDate",
            "status",
            "assistantId",
            "clientId",
            "createdAt",
            "updatedAt",
            ("assistantId", "scheduledDate"),
            ("clientId", "scheduledDate"),
            ("status", "scheduledDate"),
        ],
    )


def downgrade(op: Operations) -> None:
    op.drop_collection("schedules")
