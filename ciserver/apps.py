from django.apps import AppConfig


class CiserverConfig(AppConfig):
    name = "ciserver"

    def ready(self) -> None:
        """Make the server's Celery app the current one, so that any process can ring queues."""
        from ciserver.celery import app

        app.set_default()
