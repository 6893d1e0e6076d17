"""Deliveries: one event of a report to one receiver in one form.

Knows the outgoing identity that is fixed in the transaction that queues, and the order of one report's deliveries to one
receiver. Does not know how anything is sent: the courier does, once receivers can be added.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record.ids import new_id
from record.models import Delivery, Receiver, Report
from record.states import DeliveryState, move


def queue(session: Session, report: Report, event: str, revision: int) -> int:
    """Queue one delivery to every receiver of the report's site; returns how many."""
    receivers = session.scalars(
        select(Receiver).where(Receiver.site_id == report.site_id, Receiver.disabled_at.is_(None)).order_by(Receiver.id)
    ).all()
    for receiver in receivers:
        last = session.scalar(
            select(func.max(Delivery.position)).where(
                Delivery.receiver_id == receiver.id, Delivery.report_id == report.id
            )
        )
        delivery = Delivery(
            site_id=report.site_id,
            receiver_id=receiver.id,
            report_id=report.id,
            position=(last or 0) + 1,
            form=receiver.form,
            event=event,
            identity=f"2.25.{new_id().int}",  # a UID (PS3.5, B.2) that serves as MSH-10 and bundle id as well
            report_revision=revision,
            state="",
        )
        move(delivery, DeliveryState.QUEUED)
        session.add(delivery)
    return len(receivers)
