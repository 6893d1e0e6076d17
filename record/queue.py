"""The bell: Redis, through Celery, says "there is work" and nothing else.

Knows two queues and how many wake-ups lie in them. Does not know readings: a message holds no identifier, so losing,
doubling or delaying it is harmless. Never raises because Redis is away, and never waits long for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from record.errors import Misconfigured

if TYPE_CHECKING:  # half a second that only those who ring need to spend
    from celery import Celery

CPU, GPU = "wake.cpu", "wake.gpu"
PLENTY = 64
"""Wake-ups in a queue beyond which one more says nothing new."""
TASKS = {CPU: "wake.cpu", GPU: "wake.gpu"}


def celery_app(redis_url: SecretStr | str | None) -> Celery:
    """The Celery application, with the settings under which nothing hangs and nothing is repeated for ever.

    The broker's messages are wake-ups, so they are acknowledged early and never retried; without `socket_timeout` a
    dead connection would block a worker for ever, and without `max_retries=0` a closed port would block a sender.
    """
    from celery import Celery

    url = redis_url.get_secret_value() if isinstance(redis_url, SecretStr) else redis_url
    app = Celery("countersign", broker=url or "redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_publish_retry=False,
        task_default_queue=CPU,
        task_routes={name: {"queue": queue} for queue, name in TASKS.items()},
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        accept_content=["json"],
        task_serializer="json",
        broker_transport_options={
            "socket_timeout": 2,
            "socket_connect_timeout": 1,
            "health_check_interval": 10,
            "max_retries": 0,
        },
    )
    return app


class Bell:
    """Rings for work. One a process; made after a fork."""

    def __init__(self, redis_url: SecretStr | None) -> None:
        self._redis_url = redis_url
        self._app: Celery | None = None
        try:
            self._redis = (
                Redis.from_url(redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=1, retry=None)
                if redis_url
                else None
            )
        except ValueError:  # an option behind the question mark: the rest was looked at with the settings
            raise Misconfigured("REDIS_URL cannot be used: it looks like redis://:PASSWORD@HOST:PORT/0.") from None

    def top_up(self, queue: str, claimable: int) -> int | None:
        """At least one wake-up per claimable reading; returns how many lay there, or None while Redis is away."""
        if self._redis is None or self._redis_url is None:
            return None
        from kombu.exceptions import OperationalError

        self._app = self._app or celery_app(self._redis_url)
        try:
            depth = int(self._redis.llen(queue))
            for _ in range(claimable - depth):
                self._app.send_task(TASKS[queue], queue=queue, retry=False, ignore_result=True, expires=None)
        except (RedisError, OperationalError, OSError):
            return None
        return depth

    def ring(self, queue: str) -> None:
        """One more wake-up, unless plenty are waiting: work has just been made ready. The sweep rings for what is missed."""
        depth = self.top_up(queue, 0)
        if depth is not None and depth < PLENTY:
            self.top_up(queue, depth + 1)

    @property
    def is_configured(self) -> bool:
        """Whether there is a Redis to be asked at all."""
        return self._redis is not None

    def depths(self) -> dict[str, int] | None:
        """How many wake-ups lie in each queue; None while Redis is away."""
        try:
            return None if self._redis is None else {queue: int(self._redis.llen(queue)) for queue in TASKS}
        except (RedisError, OSError):
            return None

    def answers(self) -> bool:
        """Whether Redis is there."""
        try:
            return self._redis is not None and bool(self._redis.ping())
        except (RedisError, OSError):
            return False
