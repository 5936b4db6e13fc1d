"""Loaded by schemathesis: our rule for refusals of requests that fit the schema."""

from __future__ import annotations

from typing import Any

import schemathesis

NO_SCHEMA_TELLS = (
    "房间号已存在",  # the room is there already
    "房间已结束",
    "房间已满",
    "不能移出主持人",
    "请使用WebSocket连接",  # documented as GET, for its upgrade alone
    "不在允许的页面中",  # WX_QR_PAGES is the operator's
    "参数错误：code",  # WeChat's own verdict about a code
    "面试报告尚未生成",
    "不能用于不同的请求",  # of an Idempotency-Key
    "currentIndex",  # not beyond the outline: no schema compares two members
    "questionIndex",
    "score",  # not above maxScore, or the sum of what there is
    "不能改为",  # which state may follow which
    "面试已取消",  # a cancelled one gets no report
    "参数错误：expireTime",  # 7200.0 is an integer to JSON Schema, and no JSON integer to us
    "参数错误：lineColor",
    "参数错误：width",
    "重复",  # ids within one list
    "含有不允许的字符",  # of the open API: NUL and lone surrogates, wherever they stand
    "数值超出范围",  # beyond 2^53, in members that the schema does not name
    "嵌套过深",
    "未填充的模板变量",
    "已被使用",  # a webhook's name
    "不是控制台会话",
    "与屏幕上的数字不符",
    "参数错误：url",  # which addresses are public, DNS and WEBHOOK_ALLOW_PRIVATE say
    "租户只能订阅面试事件",  # a tenant and types of rooms
    "from 或 room",
    "未订阅此类事件",
)
"""What a 400 to a request that fits the schema may say: states, and rules between members."""


@schemathesis.check
def refusals_say_what_no_schema_tells(
    ctx: Any, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A request that fits the schema is refused only for what no schema can tell."""
    meta = case.meta
    if response.status_code != 400 or meta is None or not meta.generation.mode.is_positive:
        return
    body = response.json()
    message = body.get("message") or body.get("error")
    if not any(reason in message for reason in NO_SCHEMA_TELLS):
        raise AssertionError(f"refused although it fits the schema: {message}")
