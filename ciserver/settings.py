"""Django's settings, composed from `ciserver.env`."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from ciserver import databases, env, logging
from pipeline.routing import redis_py_url

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = env.read()

# What builds and dashboard use
DATA_DIR = ENV.data_dir
PUBLIC_URL = ENV.public_url
BROKER_URL = ENV.redis_url
AGENT_BROKER_URL = ENV.agent_redis_url
JOIN_TOKEN = ENV.join_token
SUBSET_LABELS = ENV.subset_labels
SECRET_KEYS = list(ENV.encryption_keys)
LEASE_REPORT_S = ENV.lease_report_s
LEASE_LOST_S = ENV.lease_lost_s
LOST_GRACE_S = ENV.lost_grace_s
CLOSING_S = ENV.closing_s
DEBUG_MIN = ENV.debug_min
DEBUG_MAX_MIN = ENV.debug_max_min
LOG_STORE = ENV.log_store
LOG_STORE_ENDPOINT = ENV.log_store_endpoint
ARTIFACT_LIMIT_BYTES = ENV.artifact_limit_mb * 2**20
ARTIFACT_DAYS = ENV.artifact_days
JSONNET_IMPORT_LIMIT = ENV.jsonnet_import_limit
STARLARK_STEP_LIMIT = ENV.starlark_step_limit
STARLARK_SIZE_LIMIT = ENV.starlark_size_limit
GIT_CREDENTIALS = ENV.git_credentials
GIT_SSH_KEY = ENV.git_ssh_key
GIT_SSH_KNOWN_HOSTS = ENV.git_ssh_known_hosts
WEBHOOK_ENDPOINTS = ENV.webhook_endpoint
WEBHOOK_SECRET = ENV.webhook_secret
LANES = ENV.lanes
VERSION = "0.1.0"

# Django
SECRET_KEY = ENV.secret_key
DEBUG = ENV.debug
_PUBLIC_HOST = urlsplit(PUBLIC_URL).hostname or "localhost"
_EVERY_HOST = ENV.host in env.WILDCARDS and _PUBLIC_HOST == "localhost" and not ENV.allowed_hosts
ALLOWED_HOSTS = (
    ["*"]
    if _EVERY_HOST
    else [_PUBLIC_HOST, ENV.host, "localhost", "127.0.0.1", "[::1]", *ENV.allowed_hosts]
)
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "channels",
    "django_htmx",
    "builds",
    "dashboard",
    "ciserver",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "dashboard.security.content_security_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "ciserver.urls"
ASGI_APPLICATION = "ciserver.asgi.application"
AUTH_USER_MODEL = "builds.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
APPEND_SLASH = False
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login"
SESSION_COOKIE_NAME = "ciserver_session"
CSRF_COOKIE_NAME = "ciserver_csrf"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if PUBLIC_URL.startswith("https://") else None
)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024
LOGGING_CONFIG = None
logging.configure(ENV.log_level, ENV.log_format)

# Databases
DATABASES = databases.configure(ENV)
DATABASE_ROUTERS = ["ciserver.databases.LogRouter"]

# Static files: hashed names in the collected folder, the sources themselves in debug mode and tests
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "build" / "static"
STATICFILES_DIRS = [
    (f"npm/{package}", folder)
    for package, folder in (
        ("htmx", BASE_DIR / "node_modules" / "htmx.org" / "dist"),
        ("xterm", BASE_DIR / "node_modules" / "@xterm" / "xterm" / "lib"),
        ("xterm-css", BASE_DIR / "node_modules" / "@xterm" / "xterm" / "css"),
        ("xterm-fit", BASE_DIR / "node_modules" / "@xterm" / "addon-fit" / "lib"),
    )
    if folder.is_dir()
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if (STATIC_ROOT / "staticfiles.json").is_file() or "collectstatic" in sys.argv
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG or not STATIC_ROOT.is_dir()

# Doorbells (docs/architecture): text of logs never travels here
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": redis_py_url(BROKER_URL)}], "prefix": "ci.ch"},
    }
}

# REST
REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ciserver",
    "DESCRIPTION": "Drone's REST API, served by ciserver.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": ["builds.api.schema.plain_paths"],
}
