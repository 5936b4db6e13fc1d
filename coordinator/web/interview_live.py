"""The live progress of an interview: who may watch it."""

from __future__ import annotations

import re
from typing import Any

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import NotFound
from coordinator.domain.events import INTERVIEW
from coordinator.domain.ids import new_session_id
from coordinator.domain.job import is_record_id
from coordinator.domain.people import Proof, Staff
from coordinator.live.connection import Connection, ConnectionContext
from coordinator.live.interview_viewer import InterviewViewer
from coordinator.live.websocket import LiveSocket
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.store.interviews import StoredInterviews
from coordinator.web.handshake import Refusal, presented_token, subprotocol_value
from coordinator.web.http_request import utf8_header
from coordinator.web.live_query import LiveQuery

_KEY = "key "
_TOKEN = "token "


class InterviewEndpoint:
    """`/api/open/interviews/{id}/live`: an API key whose tenant it is, or an admin.

    A credential is told as what it is: `key …` or `token …`.
    """

    kind = INTERVIEW
    path = re.compile(r"/api/open/interviews/([^/]+)/live")

    def __init__(
        self, interviews: StoredInterviews, api_keys: ApiKeys, access: Access,
        context: ConnectionContext,
    ) -> None:  # fmt: skip
        self._interviews = interviews
        self._api_keys = api_keys
        self._access = access
        self._context = context

    def credential(self, socket: LiveSocket) -> str | None:
        header = utf8_header(socket.headers.get("x-api-key"))
        if header:  # a blank one is none
            return _KEY + header
        if token := presented_token(socket):
            return _TOKEN + token
        key = subprotocol_value(socket, "key.")
        return None if key is None else _KEY + key

    def credential_of(self, frame: dict[str, Any]) -> str | None:
        for name, kind in (("key", _KEY), ("token", _TOKEN)):
            value = frame.get(name)
            if isinstance(value, str) and value:
                return kind + value
        return None

    def limit_of(self, credential: str | None) -> str:
        return "key" if credential is not None and credential.startswith(_KEY) else "live"

    async def admit(
        self, socket: LiveSocket, feed_id: str, credential: str, query: LiveQuery
    ) -> Connection:
        if credential.startswith(_KEY):
            return await self._for_key(socket, feed_id, credential[len(_KEY) :])
        return await self._for_staff(socket, feed_id, credential[len(_TOKEN) :])

    async def _for_key(
        self, socket: LiveSocket, interview_id: str, presented: str
    ) -> InterviewViewer:
        key = self._api_keys.verify(presented)
        if not is_record_id(interview_id):
            raise NotFound
        if key.enterprise_id is not None and (
            await self._interviews.record(interview_id, enterprise=key.enterprise_id) is None
        ):
            raise NotFound
        identity = {"name": key.name, "role": "observer"}
        return self._watch(socket, interview_id, identity, proof=None)

    async def _for_staff(
        self, socket: LiveSocket, interview_id: str, token: str
    ) -> InterviewViewer:
        proof = await self._access.proof(token)
        if not isinstance(proof.holder, Staff) or not proof.holder.is_admin:
            raise Refusal(CloseCode.NOT_ALLOWED)
        if not is_record_id(interview_id):
            raise NotFound
        identity = {"userId": proof.user_id, "role": "observer"}
        return self._watch(socket, interview_id, identity, proof=proof)

    def _watch(
        self,
        socket: LiveSocket,
        interview_id: str,
        identity: dict[str, Any],
        *,
        proof: Proof | None,
    ) -> InterviewViewer:
        return InterviewViewer(
            socket,
            self._context,
            session_id=new_session_id(),
            identity=identity,
            interview_id=interview_id,
            load=self._interviews.load,
            proof=proof,
            needs_admin=proof is not None,
        )
