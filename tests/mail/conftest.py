"""One MongoDB-protocol server, a fresh post office for each test."""

from tests.support.mongo import db, mongo_uri

__all__ = ["db", "mongo_uri"]
