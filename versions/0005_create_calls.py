"""create calls

Revision ID: 0005
Revises:
Schema: calls
Create Date: 2026-11-22 09:00:04+00:00
"""

from mongover import Operations

revision = "0005"
down_revision = None
schema = "calls"
depends_on = ("0001", "0002", "0003", "0004")


def upgrade(op: Operations) -> None:
    op.create_collection("calls")
    op.create_indexes(
        "calls",
        [
            "startTime",
            "endTime",
            "status",
            "assistantId",
            "clientId",
            "scheduleId",
            "createdAt",
            "updatedAt",
            ("assistantId", "startTime"),
            ("clientId", "startTime"),
            ("status", "startTime"),
            ("scheduleId", "startTime"),
        ],
    )


def downgrade(op: Operations) -> None:
    op.drop_collection("calls")
