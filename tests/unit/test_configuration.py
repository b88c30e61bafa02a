"""The settings, and the page that is generated from them (`spec.md` 15)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from conman.config import Settings, SettingsError, load_settings
from conman.configuration import configuration_page, effective_rows

ROOT = Path(__file__).parents[2]


def test_the_configuration_page_is_what_the_settings_say() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page(), "run `make docs`"


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONMAN_PORT", "70000"),
        ("CONMAN_PORT", "-1"),
        ("CONMAN_GIT_THREADS", "0"),
        ("CONMAN_LOG_LEVEL", "loud"),
        ("CONMAN_SECRET", "too short"),
        ("CONMAN_SECRET", "x" * 31),
        ("CONMAN_MASTER_KEYS", "main"),
        ("CONMAN_MASTER_KEYS", "main:dG9vIHNob3J0"),
        ("CONMAN_SESSION_HOURS", "0"),
        ("CONMAN_DIRECTORY_KEEP", "-1"),
        ("CONMAN_TARGET_TIMEOUT_SECONDS", "0"),
        ("CONMAN_TARGET_TIMEOUT_SECONDS", "781"),
        ("CONMAN_OBSERVE_TIMEOUT_SECONDS", "601"),
        ("CONMAN_MIGRATION_TIMEOUT_SECONDS", "0"),
        ("CONMAN_HEALTH_TIMEOUT_SECONDS", "781"),
        ("CONMAN_DRIFT_CHECK_MINUTES", "-1"),
        ("CONMAN_DRIFT_CHECK_MINUTES", "10081"),
        ("CONMAN_HEAL_MOST", "0"),
        ("CONMAN_HEAL_WINDOW_HOURS", "0"),
        ("CONMAN_HEAL_PAUSE_MINUTES", "-1"),
        ("CONMAN_TEMP_DATABASE_URI", "postgres://db"),
        ("CONMAN_TEMP_DATABASE_SERVERS", "db one:27017"),
        ("CONMAN_TEMP_DATABASE_MAX_MB", "0"),
        ("CONMAN_TEMP_DATABASE_BATCH", "0"),
        ("CONMAN_TEMP_ORPHAN_MINUTES", "1441"),
        ("CONMAN_TEMP_ENV_PROVISION_SECONDS", "9"),
        ("CONMAN_TEMP_URL_DOMAIN", "temp.example.com:8443"),
        ("CONMAN_TEMP_URL_DOMAIN", "*.example.com"),
        ("CONMAN_TEMP_URL_DOMAIN", "10.0.0.1"),
        ("CONMAN_PROGRAM_MEMORY_MB", "1"),
        ("CONMAN_STREAMS", "0"),
        ("CONMAN_STREAMS_OF_USER", "0"),
        ("CONMAN_FEED_HOURS", "0"),
        ("CONMAN_PROGRAM_CPU_SECONDS", "0"),
        ("CONMAN_PROGRAM_OUTPUT_BYTES", "1"),
        ("CONMAN_RATE_LIMIT_AUTH", "0"),
        ("CONMAN_RATE_LIMIT_READS", "-1"),
        ("CONMAN_TRUSTED_PROXIES", "10.0.0.1,proxy"),
        ("CONMAN_GIT_BACKEND", "svn"),
        ("CONMAN_GITALY_ADDRESS", "gitaly"),
        ("CONMAN_GITALY_ADDRESS", "http://gitaly:8075"),
        ("CONMAN_GITALY_MODE", "fast"),
        ("CONMAN_GITALY_SHORT_SECONDS", "0"),
        ("CONMAN_GITALY_MAX_MESSAGE_BYTES", "1024"),
        ("CONMAN_MIRRORS_MAX_MB", "0"),
        ("CONMAN_PUBLIC_URL", "conman.example.com"),
        ("CONMAN_PUBLIC_URL", "ftp://conman.example.com"),
        ("CONMAN_PUBLIC_URL", "https://conman.example.com/?next=x"),
        ("CONMAN_PUBLIC_URL", "https://user@conman.example.com"),
        ("CONMAN_PUBLIC_URL", "https://conman.example.com/<b>"),
        ("CONMAN_AI_BASE_URL", "models.example.com/v1"),
        ("CONMAN_AI_BASE_URL", "https://key@models.example.com/v1"),
        ("CONMAN_AI_BASE_URL", "https://models.example.com/v1?key=x"),
        ("CONMAN_AI_MODEL", "a model without its endpoint"),
        ("CONMAN_AI_TIMEOUT_SECONDS", "0"),
        ("CONMAN_AI_MAX_INPUT_BYTES", "100"),
        ("CONMAN_AI_MAX_OUTPUT_TOKENS", "1"),
        ("CONMAN_AI_OUTPUT_LIMIT_FIELD", "tokens"),
        ("CONMAN_SUITE_REUSE_HOURS", "-1"),
        ("CONMAN_JOB_LOG_DAYS", "-1"),
        ("CONMAN_MAIL_FROM", "nobody"),
        ("CONMAN_MAIL_FROM", "a@example.com, b@example.com"),
        ("CONMAN_MAIL_FROM", "Conman <conman@example.com>\r\nBcc: eve@example.com"),
        ("CONMAN_MAIL_CONCURRENCY", "0"),
        ("CONMAN_MAIL_KEEP_DAYS", "-1"),
        ("CONMAN_SMTP_HOST", ""),
        ("CONMAN_SMTP_HOST", "mail server"),
        ("CONMAN_SMTP_PORT", "0"),
        ("CONMAN_SMTP_TLS", "ssl"),
        ("CONMAN_SMTP_USERNAME", "a user without a password"),
        ("CONMAN_SMTP_TIMEOUT_SECONDS", "0"),
        ("CONMAN_CODEC_KEYS", "k1:c2hvcnQ="),
        ("CONMAN_CODEC_ENCRYPT", "perhaps"),
        ("CONMAN_CODEC_SERVER_TOKEN", "too short"),
        ("CONMAN_CODEC_SERVER_ORIGINS", "https://ui.example/path"),
        ("CONMAN_CODEC_SERVER_MAX_BODY_MB", "0"),
        ("CONMAN_COMMANDS_FILE", "/nowhere/commands.toml"),
        ("CONMAN_WEBHOOK_NETWORKS", "127.0.0.0/8,home"),
        ("CONMAN_WEBHOOK_CONCURRENCY", "0"),
        ("CONMAN_WEBHOOK_TIMEOUT_SECONDS", "31"),
        ("CONMAN_WEBHOOK_PATIENCE_HOURS", "0"),
        ("CONMAN_WEBHOOK_DELIVERY_DAYS", "-1"),
    ],
)
def test_a_value_out_of_range_stops_the_start_in_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert variable in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "given", "tls", "port"),
    [
        ("127.0.0.1", {}, "none", 25),
        ("localhost", {}, "none", 25),
        ("mail.example.com", {}, "starttls", 587),
        ("mail.example.com", {"smtp_tls": "tls"}, "tls", 465),
        ("mail.example.com", {"smtp_tls": "none", "smtp_port": 2525}, "none", 2525),
    ],
)
def test_mail_goes_to_other_machines_in_plain_text_only_where_that_was_asked_for(
    host: str, given: dict[str, object], tls: str, port: int
) -> None:
    settings = load_settings(smtp_host=host, **given)
    assert (settings.smtp_protection, settings.smtp_port_in_effect) == (tls, port)


def test_a_password_without_a_user_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_SMTP_PASSWORD", "hunter2")
    with pytest.raises(SettingsError, match="CONMAN_SMTP_USERNAME") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


def test_a_secret_of_32_bytes_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_SECRET", "x" * 32)
    assert load_settings().secret is not None


def test_secrets_and_passwords_in_addresses_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_SECRET", "s" * 40)
    monkeypatch.setenv("CONMAN_ADMIN_PASSWORD", "hunter2 hunter2")
    monkeypatch.setenv("CONMAN_MASTER_KEYS", f"main:{base64.b64encode(b'm' * 32).decode()}")
    monkeypatch.setenv("CONMAN_MONGO_URI", "mongodb://conman:hunter2@db.internal/?x=1")
    rows = effective_rows(load_settings(), set())
    shown = " ".join(row.value for row in rows)
    assert "hunter2" not in shown
    assert "s" * 40 not in shown
    assert "bW1tbW1t" not in shown
    assert "mongodb://****@db.internal/?x=1" in shown


def test_each_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("CONMAN_TEMPORAL_NAMESPACE=config\n", encoding="utf-8")
    monkeypatch.setenv("CONMAN_PORT", "9090")
    rows = {row.variable: row for row in effective_rows(load_settings(data=tmp_path), {"data"})}
    sources = {name: rows[name].source for name in ("CONMAN_PORT", "CONMAN_TEMPORAL_NAMESPACE", "CONMAN_DATA", "CONMAN_HOST")}
    assert sources == {
        "CONMAN_PORT": "environment",
        "CONMAN_TEMPORAL_NAMESPACE": ".env",
        "CONMAN_DATA": "command line",
        "CONMAN_HOST": "default",
    }
    assert rows["CONMAN_TEMPORAL_NAMESPACE"].value == "config"
