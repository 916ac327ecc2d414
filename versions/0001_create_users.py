"""create users

Revision ID: 0001
Revises:
Schema: users
Create Date: 2026-11-22 09:00:00+00:00
"""

from mongover import Operations

revision = "0001"
down_revision = None
schema = "users"
depends_on = ()


def upgrade(op: Operations) -> None:
    op.create_collection("users")
    op.create_indexes(
        "users",
        [
            op.index("email", unique=True),
            "role",
            "isActive",
            "createdAt",
            "updatedAt",
        ],
    )


def downgrade(op: Operations) -> None:
    op.drop_collection("users")
