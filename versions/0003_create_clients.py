"""create clients

Revision ID: 0003
Revises:
Schema: clients
Create Date: 2026-11-22 09:00:02+00:00
"""

from mongover import Operations

revision = "0003"
down_revision = None
schema = "clients"
depends_on = ()


def upgrade(op: Operations) -> None:
    op.create_collection("clients")
    op.create_indexes(
        "clients",
        [
            op.index("email", unique=True),
            "isActive",
            "createdAt",
            "updatedAt",
        ],
    )


def downgrade(op: Operations) -> None:
    op.drop_collection("clients")
