"""Zarrs on web servers and in object stores, opened by obstore: one library for http(s), S3, Google and Azure."""

from __future__ import annotations

import importlib
import os
from datetime import timedelta
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.chunks import METADATA
from napari_sparseseg.storage.formats._errors import optional, refused_by_server

_STORES = {
    "http": "HTTPStore",
    "https": "HTTPStore",
    "s3": "S3Store",
    "gs": "GCSStore",
    "az": "AzureStore",
    "abfs": "AzureStore",
    "abfss": "AzureStore",
}
_WAITING: dict[str, Any] = {
    "client_options": {"connect_timeout": "10s", "timeout": "60s"},
    "retry_config": {
        "max_retries": 3,
        "retry_timeout": timedelta(seconds=60),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
    },
}
# what says that requests are to be signed, or whether
_SIGNING = {
    "S3Store": (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ),
    "GCSStore": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SKIP_SIGNATURE"),
}
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def open_remote(url: str) -> zarr.Group | zarr.Array[Any]:
    """The zarr at a URL, for reading; addresses of other kinds than those of obstore are left to fsspec.

    Data that are open to all are read without an account; keys are those of the environment (AWS_ACCESS_KEY_ID...).

    Raises `InputError` if obstore is not installed, and if there is no zarr or it is forbidden to look for one.
    """
    kind = _STORES.get(url.partition("://")[0].lower())
    if kind is None:
        return zarr.open(url, mode="r")
    store = _Probing(_store(url, kind))
    try:
        return zarr.open(store, mode="r")
    except FileNotFoundError as error:
        if store.refusal is not None:
            raise refused_by_server(url) from store.refusal
        raise InputError(f"{url} is no zarr, or does not exist; check the address") from error


def _store(url: str, kind: str) -> Store:
    obstore = optional("obstore", url, "remote")
    importlib.import_module("obstore.store")
    options = _WAITING["client_options"]
    if any(address.startswith("http://") for address in (url, *(os.environ.get(name, "") for name in _ENDPOINTS))):
        options = options | {"allow_http": True}
    signing = _SIGNING.get(kind)
    # without an account a cloud's library would ask the machine for one, and wait for an answer
    is_open = signing is not None and not any(name in os.environ for name in signing)
    config = {"config": {"skip_signature": True}} if is_open else {}
    made = getattr(obstore.store, kind).from_url(
        url, client_options=options, retry_config=_WAITING["retry_config"], **config
    )
    return ObjectStore(made, read_only=True)


class _Probing(WrapperStore[Store]):
    """A store in which metadata that are forbidden are missing: so S3 answers for missing ones to who may not list.

    Voxels that are forbidden remain an error. `refusal` is the last one that metadata met with.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.refusal: Exception | None = None

    def _with_store(self, store: Store) -> _Probing:
        return _Probing(store)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored under a key."""
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        try:
            return await super().get(key, prototype, byte_range)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            if not key.endswith(METADATA):
                raise
            self.refusal = error
            return None
