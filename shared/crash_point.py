"""Named points at which a process dies, if it was started to die there.

A crash between two statements happens once in a million jobs; tests make it happen always. In a
process that was not armed, which is every process outside of tests, a point does nothing.
"""

import os
from enum import StrEnum

#: What a process leaves that died at a point, so that a test knows that it was reached.
EXIT_CODE = 137


class CrashPoint(StrEnum):
    """Where a crash would be the hardest to get over."""

    #: The row is committed, the client has no answer.
    AFTER_SUBMIT = "after_submit"
    #: The row is marked as announced, the message was not sent.
    AFTER_DISPATCH = "after_dispatch"
    #: The worker holds the lease and has done nothing.
    AFTER_CLAIM = "after_claim"
    #: A state of the job was written down, the store has not seen it.
    BEFORE_CHECKPOINT_UPLOAD = "before_checkpoint_upload"
    #: The store holds it beside the one before it.
    AFTER_CHECKPOINT_UPLOAD = "after_checkpoint_upload"
    #: The worker has read the state that the job goes on from, and done nothing with it.
    AFTER_CHECKPOINT_READ = "after_checkpoint_read"
    #: The outputs are in the store, the row does not tell of them.
    AFTER_UPLOAD = "after_upload"
    #: The row would tell of them, if it were committed.
    BEFORE_FINISH_COMMIT = "before_finish_commit"
    #: It tells of them, the worker does not know that it does.
    AFTER_FINISH_COMMIT = "after_finish_commit"
    #: The receiver has the event, the database does not know that it has.
    AFTER_WEBHOOK_POST = "after_webhook_post"


_armed: CrashPoint | None = None


def arm(point: CrashPoint | None) -> None:
    """Have this process die at a point, or at none."""
    global _armed
    _armed = point


def reached(point: CrashPoint) -> None:
    """Die here, without any farewell, if this is the point."""
    if point is _armed:
        os._exit(EXIT_CODE)
