"""Which class answers each service, by the server's flavour."""

from __future__ import annotations

import grpc

from conman.git import server_gitaly_rs as gitaly_rs
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_blobs import BlobService
from conman.git.server_call import Ground, ServerFlavour
from conman.git.server_commits import CommitService
from conman.git.server_diffs import DiffService
from conman.git.server_files import FileCalls
from conman.git.server_merges import MergeCalls
from conman.git.server_refs import RefService
from conman.git.server_repository import RepositoryService
from conman.git.server_smart import SmartHTTPService


class OperationService(MergeCalls, FileCalls):
    """What people do: branches, tags, commits, merges, rebases, reverts."""


def register(ground: Ground, server: grpc.aio.Server) -> None:
    """Add all services to a server."""
    full = ground.flavour is ServerFlavour.FULL
    repositories = RepositoryService if full else gitaly_rs.GitalyRsRepositories
    refs = RefService if full else gitaly_rs.GitalyRsRefs
    commits = CommitService if full else gitaly_rs.GitalyRsCommits
    blobs = BlobService if full else gitaly_rs.GitalyRsBlobs
    diffs = DiffService if full else gitaly_rs.GitalyRsDiffs
    operations = OperationService if full else gitaly_rs.GitalyRsOperations
    smart = SmartHTTPService if full else gitaly_rs.GitalyRsSmartHTTP
    rpc.add_RepositoryServiceServicer_to_server(repositories(ground), server)
    rpc.add_RefServiceServicer_to_server(refs(ground), server)
    rpc.add_CommitServiceServicer_to_server(commits(ground), server)
    rpc.add_BlobServiceServicer_to_server(blobs(ground), server)
    rpc.add_DiffServiceServicer_to_server(diffs(ground), server)
    rpc.add_OperationServiceServicer_to_server(operations(ground), server)
    rpc.add_SmartHTTPServiceServicer_to_server(smart(ground), server)
