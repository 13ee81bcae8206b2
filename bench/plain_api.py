"""The API that most people would write: FastAPI, SQLAlchemy and Celery, a row and a message a job.

With it the same route without a row or a message, which is what the framework costs.
"""

import logging
import uuid
from datetime import datetime

import sqlalchemy as sa
import uvicorn
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

QUEUE = "plain"
POOL_SIZE = 20


class Base(DeclarativeBase):
    """Tables of the plain API."""


class PlainJob(Base):
    """A job's row."""

    __tablename__ = "plain_jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="queued")
    request: Mapped[dict[str, object]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(
        sa.TIMESTAMP(timezone=True), server_default=sa.func.now()
    )


class PlainRequest(BaseModel):
    """A request, validated as far as everybody does."""

    prompt: str = Field(min_length=1, max_length=4000)
    negative_prompt: str = ""
    steps: int = Field(default=25, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1, le=50)
    seed: int = 0
    width: int = 64
    height: int = 64


class PlainAnswer(BaseModel):
    """What the client is told."""

    id: str
    status: str
    request: PlainRequest


def make_plain_app(database_url: str, redis_url: str) -> FastAPI:
    """Make an application with `POST /jobs` and, without row and message, `POST /bare`."""
    url = sa.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, pool_size=POOL_SIZE)
    celery = Celery(broker=redis_url)
    app = FastAPI()

    @app.post("/jobs", status_code=202)
    def submit(body: PlainRequest) -> PlainAnswer:
        job = PlainJob(id=str(uuid.uuid4()), status="queued", request=body.model_dump())
        answer = PlainAnswer(id=job.id, status=job.status, request=body)
        with Session(engine) as session:
            session.add(job)
            session.commit()
        celery.send_task("generate", args=[answer.id], queue=QUEUE)
        return answer

    @app.post("/bare", status_code=202)
    async def answer_only(body: PlainRequest) -> PlainAnswer:
        return PlainAnswer(id=str(uuid.uuid4()), status="queued", request=body)

    return app


def create_table(engine: sa.Engine) -> None:
    """Make the table of the plain API."""
    Base.metadata.create_all(engine)


def serve_plain(database_url: str, redis_url: str, port: int) -> None:
    """Serve the plain API as LatentQ's own is served."""
    logging.disable(logging.INFO)
    uvicorn.run(
        make_plain_app(database_url, redis_url),
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
    )
