"""What is refused of webhooks, in Chinese for callers of the API and in English for commands."""

from __future__ import annotations

from coordinator.domain.errors import InvalidParams, NotFound, Unavailable

MAX_URL = 2000


def no_such_webhook() -> NotFound:
    return NotFound("Webhook不存在", in_english="there is no such webhook")


def no_such_log() -> NotFound:
    return NotFound("房间不存在", in_english="there is no such room or interview")


def nothing_failed() -> NotFound:
    return NotFound("该房间没有失败的投递", in_english="no delivery of that room has failed")


def no_data_keys() -> Unavailable:
    return Unavailable("未设置DATA_KEYS", in_english="DATA_KEYS is not set")


def no_key_of_its_secret() -> Unavailable:
    return Unavailable(
        "DATA_KEYS中没有加密此Webhook密钥的密钥",
        in_english="the key that encrypted its secret is not among DATA_KEYS",
    )


def not_told_such_events() -> InvalidParams:
    return InvalidParams(
        "该Webhook未订阅此类事件", in_english="that webhook is not told such events"
    )


def neither_or_both() -> InvalidParams:
    return InvalidParams("请提供 from 或 room 其中之一", in_english="give either from or room")


def no_enterprise() -> InvalidParams:
    return InvalidParams.wrong("tenant", "应为企业ID", in_english="must be an enterprise's id")


def taken_name() -> InvalidParams:
    return InvalidParams.wrong("name", "已被使用", in_english="is taken")


def bad_name() -> InvalidParams:
    return InvalidParams.wrong(
        "name", "只能是1到100个字母、数字、.、_和-",
        in_english="must be 1 to 100 letters, digits, '.', '_' and '-'",
    )  # fmt: skip


def unknown_event(name: str) -> InvalidParams:
    return InvalidParams.wrong("events", f"没有事件 {name}", in_english=f"there is no {name!r}")


def nothing_to_tell() -> InvalidParams:
    return InvalidParams.wrong(
        "events", "没有可投递的事件（租户只能订阅面试事件）",
        in_english="nothing would be told (with a tenant, interviews alone are)",
    )  # fmt: skip


def long_url() -> InvalidParams:
    return InvalidParams.wrong(
        "url", f"不能超过{MAX_URL}个字符", in_english=f"must have at most {MAX_URL} characters"
    )


def bad_url() -> InvalidParams:
    return InvalidParams.wrong(
        "url", "应为完整的 https:// 地址，不含账号与片段",
        in_english="must be a whole https:// address, without login and fragment",
    )  # fmt: skip


def private_url() -> InvalidParams:
    return InvalidParams.wrong(
        "url", "须为公网的 https 地址",
        in_english="must be https and public, or of a network in WEBHOOK_ALLOW_PRIVATE",
    )  # fmt: skip


def plain_url() -> InvalidParams:
    return InvalidParams.wrong(
        "url", "http只能用于本机", in_english="http is for this machine alone"
    )
