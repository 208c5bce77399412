"""Calls methods by name with JSON, by nothing but what reflection tells: what grpcurl does."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Curl:
    """One server, known by its address alone."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self._database = ProtoReflectionDescriptorDatabase(self.channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> set[str]:
        """Names of all services."""
        return set(self._database.get_services())

    def call(self, path: str, **fields: Any) -> list[dict[str, Any]]:
        """All answers of one call, as grpcurl prints them."""
        service, _, name = path.partition("/")
        method = self._pool.FindServiceByName(service).methods_by_name[name]
        request = json_format.ParseDict(fields, GetMessageClass(method.input_type)())
        kind: Any = (
            self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        )
        answer = kind(
            f"/{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )(request, timeout=60)
        answers = list(answer) if method.server_streaming else [answer]
        return [
            json_format.MessageToDict(each, preserving_proto_field_name=True) for each in answers
        ]

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()
