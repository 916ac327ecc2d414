"""One server process for many projects: `POST /mount` includes a router at a prefix of its own.

A server for each test would cost more than the test itself.
"""

from __future__ import annotations

from typing import Any

import uvicorn
from fastapi import Body, FastAPI

from mongover.web.api import migrations_router

ALL_OF_IT = Body()


def make_site() -> FastAPI:
    """An application that other projects' migrations can be added to while it runs."""
    app = FastAPI()

    @app.post("/mount")
    def mount(asked: dict[str, Any] = ALL_OF_IT) -> dict[str, str]:
        router = migrations_router(
            asked["config"],
            prefix=asked["prefix"],
            token=asked["token"],
            read_token=asked["read_token"],
            environ={},
        )
        app.include_router(router)
        return {"prefix": asked["prefix"]}

    return app


if __name__ == "__main__":
    uvicorn.run(make_site(), host="127.0.0.1", port=0)
