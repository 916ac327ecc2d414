"""create assistants

Revision ID: 0002
Revises:
Schema: assistants
Create Date: 2026-11-22 09:00:01+00:00
"""

from mongover import Operations

revision = "0002"
down_revision = None
schema = "assistants"
depends_on = ()


def upgrade(op: Operations) -> None:
    op.create_collection("assistants")
    op.create_indexes(
        "assistants",
        [
            "name",
            "isActive",
            "voiceType",
            "language",
            "createdAt",
            "updatedAt",
        ],
    )


def downgrade(op: Operations) -> None:
    op.drop_collection("assistants")
