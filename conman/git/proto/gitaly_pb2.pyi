import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObjectFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECT_FORMAT_UNSPECIFIED: _ClassVar[ObjectFormat]
    OBJECT_FORMAT_SHA1: _ClassVar[ObjectFormat]
    OBJECT_FORMAT_SHA256: _ClassVar[ObjectFormat]

class ObjectType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[ObjectType]
    COMMIT: _ClassVar[ObjectType]
    BLOB: _ClassVar[ObjectType]
    TREE: _ClassVar[ObjectType]
    TAG: _ClassVar[ObjectType]

class SignatureType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONE: _ClassVar[SignatureType]
    PGP: _ClassVar[SignatureType]
    X509: _ClassVar[SignatureType]
    SSH: _ClassVar[SignatureType]

class SortDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASCENDING: _ClassVar[SortDirection]
    DESCENDING: _ClassVar[SortDirection]
OBJECT_FORMAT_UNSPECIFIED: ObjectFormat
OBJECT_FORMAT_SHA1: ObjectFormat
OBJECT_FORMAT_SHA256: ObjectFormat
UNKNOWN: ObjectType
COMMIT: ObjectType
BLOB: ObjectType
TREE: ObjectType
TAG: ObjectType
NONE: SignatureType
PGP: SignatureType
X509: SignatureType
SSH: SignatureType
ASCENDING: SortDirection
DESCENDING: SortDirection

class Branch(_message.Message):
    __slots__ = ("name", "target_commit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_COMMIT_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    target_commit: GitCommit
    def __init__(self, name: _Optional[bytes] = ..., target_commit: _Optional[_Union[GitCommit, _Mapping]] = ...) -> None: ...

class ChangedPaths(_message.Message):
    __slots__ = ("path", "status", "old_mode", "new_mode", "old_blob_id", "new_blob_id", "old_path", "score", "commit_id")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ADDED: _ClassVar[ChangedPaths.Status]
        MODIFIED: _ClassVar[ChangedPaths.Status]
        DELETED: _ClassVar[ChangedPaths.Status]
        TYPE_CHANGE: _ClassVar[ChangedPaths.Status]
        COPIED: _ClassVar[ChangedPaths.Status]
        RENAMED: _ClassVar[ChangedPaths.Status]
    ADDED: ChangedPaths.Status
    MODIFIED: ChangedPaths.Status
    DELETED: ChangedPaths.Status
    TYPE_CHANGE: ChangedPaths.Status
    COPIED: ChangedPaths.Status
    RENAMED: ChangedPaths.Status
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OLD_MODE_FIELD_NUMBER: _ClassVar[int]
    NEW_MODE_FIELD_NUMBER: _ClassVar[int]
    OLD_BLOB_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_BLOB_ID_FIELD_NUMBER: _ClassVar[int]
    OLD_PATH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    status: ChangedPaths.Status
    old_mode: int
    new_mode: int
    old_blob_id: str
    new_blob_id: str
    old_path: bytes
    score: int
    commit_id: str
    def __init__(self, path: _Optional[bytes] = ..., status: _Optional[_Union[ChangedPaths.Status, str]] = ..., old_mode: _Optional[int] = ..., new_mode: _Optional[int] = ..., old_blob_id: _Optional[str] = ..., new_blob_id: _Optional[str] = ..., old_path: _Optional[bytes] = ..., score: _Optional[int] = ..., commit_id: _Optional[str] = ...) -> None: ...

class CommitAuthor(_message.Message):
    __slots__ = ("name", "email", "date", "timezone")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    email: bytes
    date: _timestamp_pb2.Timestamp
    timezone: bytes
    def __init__(self, name: _Optional[bytes] = ..., email: _Optional[bytes] = ..., date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timezone: _Optional[bytes] = ...) -> None: ...

class CommitDiffRequest(_message.Message):
    __slots__ = ("repository", "left_commit_id", "right_commit_id", "paths", "collapse_diffs", "enforce_limits", "max_files", "max_lines", "max_bytes", "safe_max_files", "safe_max_lines", "safe_max_bytes", "max_patch_bytes", "diff_mode", "max_patch_bytes_for_file_extension", "whitespace_changes", "collect_all_paths")
    class DiffMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEFAULT: _ClassVar[CommitDiffRequest.DiffMode]
        WORDDIFF: _ClassVar[CommitDiffRequest.DiffMode]
    DEFAULT: CommitDiffRequest.DiffMode
    WORDDIFF: CommitDiffRequest.DiffMode
    class WhitespaceChanges(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WHITESPACE_CHANGES_UNSPECIFIED: _ClassVar[CommitDiffRequest.WhitespaceChanges]
        WHITESPACE_CHANGES_IGNORE: _ClassVar[CommitDiffRequest.WhitespaceChanges]
        WHITESPACE_CHANGES_IGNORE_ALL: _ClassVar[CommitDiffRequest.WhitespaceChanges]
    WHITESPACE_CHANGES_UNSPECIFIED: CommitDiffRequest.WhitespaceChanges
    WHITESPACE_CHANGES_IGNORE: CommitDiffRequest.WhitespaceChanges
    WHITESPACE_CHANGES_IGNORE_ALL: CommitDiffRequest.WhitespaceChanges
    class MaxPatchBytesForFileExtensionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    LEFT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    COLLAPSE_DIFFS_FIELD_NUMBER: _ClassVar[int]
    ENFORCE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    MAX_FILES_FIELD_NUMBER: _ClassVar[int]
    MAX_LINES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAFE_MAX_FILES_FIELD_NUMBER: _ClassVar[int]
    SAFE_MAX_LINES_FIELD_NUMBER: _ClassVar[int]
    SAFE_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIFF_MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_PATCH_BYTES_FOR_FILE_EXTENSION_FIELD_NUMBER: _ClassVar[int]
    WHITESPACE_CHANGES_FIELD_NUMBER: _ClassVar[int]
    COLLECT_ALL_PATHS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    left_commit_id: str
    right_commit_id: str
    paths: _containers.RepeatedScalarFieldContainer[bytes]
    collapse_diffs: bool
    enforce_limits: bool
    max_files: int
    max_lines: int
    max_bytes: int
    safe_max_files: int
    safe_max_lines: int
    safe_max_bytes: int
    max_patch_bytes: int
    diff_mode: CommitDiffRequest.DiffMode
    max_patch_bytes_for_file_extension: _containers.ScalarMap[str, int]
    whitespace_changes: CommitDiffRequest.WhitespaceChanges
    collect_all_paths: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., left_commit_id: _Optional[str] = ..., right_commit_id: _Optional[str] = ..., paths: _Optional[_Iterable[bytes]] = ..., collapse_diffs: _Optional[bool] = ..., enforce_limits: _Optional[bool] = ..., max_files: _Optional[int] = ..., max_lines: _Optional[int] = ..., max_bytes: _Optional[int] = ..., safe_max_files: _Optional[int] = ..., safe_max_lines: _Optional[int] = ..., safe_max_bytes: _Optional[int] = ..., max_patch_bytes: _Optional[int] = ..., diff_mode: _Optional[_Union[CommitDiffRequest.DiffMode, str]] = ..., max_patch_bytes_for_file_extension: _Optional[_Mapping[str, int]] = ..., whitespace_changes: _Optional[_Union[CommitDiffRequest.WhitespaceChanges, str]] = ..., collect_all_paths: _Optional[bool] = ...) -> None: ...

class CommitDiffResponse(_message.Message):
    __slots__ = ("from_path", "to_path", "from_id", "to_id", "old_mode", "new_mode", "binary", "raw_patch_data", "end_of_patch", "overflow_marker", "collapsed", "too_large", "lines_added", "lines_removed")
    FROM_PATH_FIELD_NUMBER: _ClassVar[int]
    TO_PATH_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    OLD_MODE_FIELD_NUMBER: _ClassVar[int]
    NEW_MODE_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    RAW_PATCH_DATA_FIELD_NUMBER: _ClassVar[int]
    END_OF_PATCH_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_MARKER_FIELD_NUMBER: _ClassVar[int]
    COLLAPSED_FIELD_NUMBER: _ClassVar[int]
    TOO_LARGE_FIELD_NUMBER: _ClassVar[int]
    LINES_ADDED_FIELD_NUMBER: _ClassVar[int]
    LINES_REMOVED_FIELD_NUMBER: _ClassVar[int]
    from_path: bytes
    to_path: bytes
    from_id: str
    to_id: str
    old_mode: int
    new_mode: int
    binary: bool
    raw_patch_data: bytes
    end_of_patch: bool
    overflow_marker: bool
    collapsed: bool
    too_large: bool
    lines_added: int
    lines_removed: int
    def __init__(self, from_path: _Optional[bytes] = ..., to_path: _Optional[bytes] = ..., from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., old_mode: _Optional[int] = ..., new_mode: _Optional[int] = ..., binary: _Optional[bool] = ..., raw_patch_data: _Optional[bytes] = ..., end_of_patch: _Optional[bool] = ..., overflow_marker: _Optional[bool] = ..., collapsed: _Optional[bool] = ..., too_large: _Optional[bool] = ..., lines_added: _Optional[int] = ..., lines_removed: _Optional[int] = ...) -> None: ...

class CommitIsAncestorRequest(_message.Message):
    __slots__ = ("repository", "ancestor_id", "child_id")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    ANCESTOR_ID_FIELD_NUMBER: _ClassVar[int]
    CHILD_ID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    ancestor_id: str
    child_id: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., ancestor_id: _Optional[str] = ..., child_id: _Optional[str] = ...) -> None: ...

class CommitIsAncestorResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bool
    def __init__(self, value: _Optional[bool] = ...) -> None: ...

class CommitStatInfo(_message.Message):
    __slots__ = ("additions", "deletions", "changed_files")
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FILES_FIELD_NUMBER: _ClassVar[int]
    additions: int
    deletions: int
    changed_files: int
    def __init__(self, additions: _Optional[int] = ..., deletions: _Optional[int] = ..., changed_files: _Optional[int] = ...) -> None: ...

class CommitTrailer(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class CreateRepositoryRequest(_message.Message):
    __slots__ = ("repository", "default_branch", "object_format")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BRANCH_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    default_branch: bytes
    object_format: ObjectFormat
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., default_branch: _Optional[bytes] = ..., object_format: _Optional[_Union[ObjectFormat, str]] = ...) -> None: ...

class CreateRepositoryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRefsRequest(_message.Message):
    __slots__ = ("repository", "except_with_prefix", "refs")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_WITH_PREFIX_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    except_with_prefix: _containers.RepeatedScalarFieldContainer[bytes]
    refs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., except_with_prefix: _Optional[_Iterable[bytes]] = ..., refs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DeleteRefsResponse(_message.Message):
    __slots__ = ("git_error",)
    GIT_ERROR_FIELD_NUMBER: _ClassVar[int]
    git_error: str
    def __init__(self, git_error: _Optional[str] = ...) -> None: ...

class DiffStats(_message.Message):
    __slots__ = ("path", "additions", "deletions", "old_path")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    OLD_PATH_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    additions: int
    deletions: int
    old_path: bytes
    def __init__(self, path: _Optional[bytes] = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ..., old_path: _Optional[bytes] = ...) -> None: ...

class DiffStatsRequest(_message.Message):
    __slots__ = ("repository", "left_commit_id", "right_commit_id")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    LEFT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    left_commit_id: str
    right_commit_id: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., left_commit_id: _Optional[str] = ..., right_commit_id: _Optional[str] = ...) -> None: ...

class DiffStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[DiffStats]
    def __init__(self, stats: _Optional[_Iterable[_Union[DiffStats, _Mapping]]] = ...) -> None: ...

class FindAllTagsRequest(_message.Message):
    __slots__ = ("repository", "sort_by", "pagination_params")
    class SortBy(_message.Message):
        __slots__ = ("key", "direction")
        class Key(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            REFNAME: _ClassVar[FindAllTagsRequest.SortBy.Key]
            CREATORDATE: _ClassVar[FindAllTagsRequest.SortBy.Key]
            VERSION_REFNAME: _ClassVar[FindAllTagsRequest.SortBy.Key]
        REFNAME: FindAllTagsRequest.SortBy.Key
        CREATORDATE: FindAllTagsRequest.SortBy.Key
        VERSION_REFNAME: FindAllTagsRequest.SortBy.Key
        KEY_FIELD_NUMBER: _ClassVar[int]
        DIRECTION_FIELD_NUMBER: _ClassVar[int]
        key: FindAllTagsRequest.SortBy.Key
        direction: SortDirection
        def __init__(self, key: _Optional[_Union[FindAllTagsRequest.SortBy.Key, str]] = ..., direction: _Optional[_Union[SortDirection, str]] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_PARAMS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    sort_by: FindAllTagsRequest.SortBy
    pagination_params: PaginationParameter
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., sort_by: _Optional[_Union[FindAllTagsRequest.SortBy, _Mapping]] = ..., pagination_params: _Optional[_Union[PaginationParameter, _Mapping]] = ...) -> None: ...

class FindAllTagsResponse(_message.Message):
    __slots__ = ("tags",)
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedCompositeFieldContainer[Tag]
    def __init__(self, tags: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ...) -> None: ...

class FindBranchRequest(_message.Message):
    __slots__ = ("repository", "name")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    name: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., name: _Optional[bytes] = ...) -> None: ...

class FindBranchResponse(_message.Message):
    __slots__ = ("branch",)
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    branch: Branch
    def __init__(self, branch: _Optional[_Union[Branch, _Mapping]] = ...) -> None: ...

class FindChangedPathsRequest(_message.Message):
    __slots__ = ("repository", "commits", "requests", "merge_commit_diff_mode", "find_renames", "diff_filters")
    class DiffStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DIFF_STATUS_UNSPECIFIED: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_ADDED: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_MODIFIED: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_DELETED: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_TYPE_CHANGE: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_COPIED: _ClassVar[FindChangedPathsRequest.DiffStatus]
        DIFF_STATUS_RENAMED: _ClassVar[FindChangedPathsRequest.DiffStatus]
    DIFF_STATUS_UNSPECIFIED: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_ADDED: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_MODIFIED: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_DELETED: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_TYPE_CHANGE: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_COPIED: FindChangedPathsRequest.DiffStatus
    DIFF_STATUS_RENAMED: FindChangedPathsRequest.DiffStatus
    class MergeCommitDiffMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MERGE_COMMIT_DIFF_MODE_UNSPECIFIED: _ClassVar[FindChangedPathsRequest.MergeCommitDiffMode]
        MERGE_COMMIT_DIFF_MODE_INCLUDE_MERGES: _ClassVar[FindChangedPathsRequest.MergeCommitDiffMode]
        MERGE_COMMIT_DIFF_MODE_ALL_PARENTS: _ClassVar[FindChangedPathsRequest.MergeCommitDiffMode]
    MERGE_COMMIT_DIFF_MODE_UNSPECIFIED: FindChangedPathsRequest.MergeCommitDiffMode
    MERGE_COMMIT_DIFF_MODE_INCLUDE_MERGES: FindChangedPathsRequest.MergeCommitDiffMode
    MERGE_COMMIT_DIFF_MODE_ALL_PARENTS: FindChangedPathsRequest.MergeCommitDiffMode
    class Request(_message.Message):
        __slots__ = ("tree_request", "commit_request")
        class CommitRequest(_message.Message):
            __slots__ = ("commit_revision", "parent_commit_revisions")
            COMMIT_REVISION_FIELD_NUMBER: _ClassVar[int]
            PARENT_COMMIT_REVISIONS_FIELD_NUMBER: _ClassVar[int]
            commit_revision: str
            parent_commit_revisions: _containers.RepeatedScalarFieldContainer[str]
            def __init__(self, commit_revision: _Optional[str] = ..., parent_commit_revisions: _Optional[_Iterable[str]] = ...) -> None: ...
        class TreeRequest(_message.Message):
            __slots__ = ("left_tree_revision", "right_tree_revision")
            LEFT_TREE_REVISION_FIELD_NUMBER: _ClassVar[int]
            RIGHT_TREE_REVISION_FIELD_NUMBER: _ClassVar[int]
            left_tree_revision: str
            right_tree_revision: str
            def __init__(self, left_tree_revision: _Optional[str] = ..., right_tree_revision: _Optional[str] = ...) -> None: ...
        TREE_REQUEST_FIELD_NUMBER: _ClassVar[int]
        COMMIT_REQUEST_FIELD_NUMBER: _ClassVar[int]
        tree_request: FindChangedPathsRequest.Request.TreeRequest
        commit_request: FindChangedPathsRequest.Request.CommitRequest
        def __init__(self, tree_request: _Optional[_Union[FindChangedPathsRequest.Request.TreeRequest, _Mapping]] = ..., commit_request: _Optional[_Union[FindChangedPathsRequest.Request.CommitRequest, _Mapping]] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MERGE_COMMIT_DIFF_MODE_FIELD_NUMBER: _ClassVar[int]
    FIND_RENAMES_FIELD_NUMBER: _ClassVar[int]
    DIFF_FILTERS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    commits: _containers.RepeatedScalarFieldContainer[str]
    requests: _containers.RepeatedCompositeFieldContainer[FindChangedPathsRequest.Request]
    merge_commit_diff_mode: FindChangedPathsRequest.MergeCommitDiffMode
    find_renames: bool
    diff_filters: _containers.RepeatedScalarFieldContainer[FindChangedPathsRequest.DiffStatus]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., commits: _Optional[_Iterable[str]] = ..., requests: _Optional[_Iterable[_Union[FindChangedPathsRequest.Request, _Mapping]]] = ..., merge_commit_diff_mode: _Optional[_Union[FindChangedPathsRequest.MergeCommitDiffMode, str]] = ..., find_renames: _Optional[bool] = ..., diff_filters: _Optional[_Iterable[_Union[FindChangedPathsRequest.DiffStatus, str]]] = ...) -> None: ...

class FindChangedPathsResponse(_message.Message):
    __slots__ = ("paths",)
    PATHS_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedCompositeFieldContainer[ChangedPaths]
    def __init__(self, paths: _Optional[_Iterable[_Union[ChangedPaths, _Mapping]]] = ...) -> None: ...

class FindCommitRequest(_message.Message):
    __slots__ = ("repository", "revision", "trailers")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TRAILERS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revision: bytes
    trailers: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revision: _Optional[bytes] = ..., trailers: _Optional[bool] = ...) -> None: ...

class FindCommitResponse(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: GitCommit
    def __init__(self, commit: _Optional[_Union[GitCommit, _Mapping]] = ...) -> None: ...

class FindLocalBranchesRequest(_message.Message):
    __slots__ = ("repository", "sort_by", "pagination_params")
    class SortBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NAME: _ClassVar[FindLocalBranchesRequest.SortBy]
        UPDATED_ASC: _ClassVar[FindLocalBranchesRequest.SortBy]
        UPDATED_DESC: _ClassVar[FindLocalBranchesRequest.SortBy]
    NAME: FindLocalBranchesRequest.SortBy
    UPDATED_ASC: FindLocalBranchesRequest.SortBy
    UPDATED_DESC: FindLocalBranchesRequest.SortBy
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_PARAMS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    sort_by: FindLocalBranchesRequest.SortBy
    pagination_params: PaginationParameter
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., sort_by: _Optional[_Union[FindLocalBranchesRequest.SortBy, str]] = ..., pagination_params: _Optional[_Union[PaginationParameter, _Mapping]] = ...) -> None: ...

class FindLocalBranchesResponse(_message.Message):
    __slots__ = ("local_branches",)
    LOCAL_BRANCHES_FIELD_NUMBER: _ClassVar[int]
    local_branches: _containers.RepeatedCompositeFieldContainer[Branch]
    def __init__(self, local_branches: _Optional[_Iterable[_Union[Branch, _Mapping]]] = ...) -> None: ...

class FindMergeBaseRequest(_message.Message):
    __slots__ = ("repository", "revisions")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revisions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revisions: _Optional[_Iterable[bytes]] = ...) -> None: ...

class FindMergeBaseResponse(_message.Message):
    __slots__ = ("base",)
    BASE_FIELD_NUMBER: _ClassVar[int]
    base: str
    def __init__(self, base: _Optional[str] = ...) -> None: ...

class FindTagRequest(_message.Message):
    __slots__ = ("repository", "tag_name")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    TAG_NAME_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    tag_name: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., tag_name: _Optional[bytes] = ...) -> None: ...

class FindTagResponse(_message.Message):
    __slots__ = ("tag",)
    TAG_FIELD_NUMBER: _ClassVar[int]
    tag: Tag
    def __init__(self, tag: _Optional[_Union[Tag, _Mapping]] = ...) -> None: ...

class GetBlobRequest(_message.Message):
    __slots__ = ("repository", "oid", "limit")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    OID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    oid: str
    limit: int
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., oid: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetBlobResponse(_message.Message):
    __slots__ = ("size", "data", "oid")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OID_FIELD_NUMBER: _ClassVar[int]
    size: int
    data: bytes
    oid: str
    def __init__(self, size: _Optional[int] = ..., data: _Optional[bytes] = ..., oid: _Optional[str] = ...) -> None: ...

class GetBlobsRequest(_message.Message):
    __slots__ = ("repository", "revision_paths", "limit")
    class RevisionPath(_message.Message):
        __slots__ = ("revision", "path")
        REVISION_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        revision: str
        path: bytes
        def __init__(self, revision: _Optional[str] = ..., path: _Optional[bytes] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_PATHS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revision_paths: _containers.RepeatedCompositeFieldContainer[GetBlobsRequest.RevisionPath]
    limit: int
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revision_paths: _Optional[_Iterable[_Union[GetBlobsRequest.RevisionPath, _Mapping]]] = ..., limit: _Optional[int] = ...) -> None: ...

class GetBlobsResponse(_message.Message):
    __slots__ = ("size", "data", "oid", "is_submodule", "mode", "revision", "path", "type")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OID_FIELD_NUMBER: _ClassVar[int]
    IS_SUBMODULE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    size: int
    data: bytes
    oid: str
    is_submodule: bool
    mode: int
    revision: str
    path: bytes
    type: ObjectType
    def __init__(self, size: _Optional[int] = ..., data: _Optional[bytes] = ..., oid: _Optional[str] = ..., is_submodule: _Optional[bool] = ..., mode: _Optional[int] = ..., revision: _Optional[str] = ..., path: _Optional[bytes] = ..., type: _Optional[_Union[ObjectType, str]] = ...) -> None: ...

class GetTreeEntriesRequest(_message.Message):
    __slots__ = ("repository", "revision", "path", "recursive", "sort", "pagination_params", "skip_flat_paths")
    class SortBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEFAULT: _ClassVar[GetTreeEntriesRequest.SortBy]
        TREES_FIRST: _ClassVar[GetTreeEntriesRequest.SortBy]
        FILESYSTEM: _ClassVar[GetTreeEntriesRequest.SortBy]
    DEFAULT: GetTreeEntriesRequest.SortBy
    TREES_FIRST: GetTreeEntriesRequest.SortBy
    FILESYSTEM: GetTreeEntriesRequest.SortBy
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    SORT_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_PARAMS_FIELD_NUMBER: _ClassVar[int]
    SKIP_FLAT_PATHS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revision: bytes
    path: bytes
    recursive: bool
    sort: GetTreeEntriesRequest.SortBy
    pagination_params: PaginationParameter
    skip_flat_paths: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revision: _Optional[bytes] = ..., path: _Optional[bytes] = ..., recursive: _Optional[bool] = ..., sort: _Optional[_Union[GetTreeEntriesRequest.SortBy, str]] = ..., pagination_params: _Optional[_Union[PaginationParameter, _Mapping]] = ..., skip_flat_paths: _Optional[bool] = ...) -> None: ...

class GetTreeEntriesResponse(_message.Message):
    __slots__ = ("entries", "pagination_cursor")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_CURSOR_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[TreeEntry]
    pagination_cursor: PaginationCursor
    def __init__(self, entries: _Optional[_Iterable[_Union[TreeEntry, _Mapping]]] = ..., pagination_cursor: _Optional[_Union[PaginationCursor, _Mapping]] = ...) -> None: ...

class GitCommit(_message.Message):
    __slots__ = ("id", "subject", "body", "author", "committer", "parent_ids", "body_size", "signature_type", "tree_id", "trailers", "short_stats", "referenced_by", "encoding")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    COMMITTER_FIELD_NUMBER: _ClassVar[int]
    PARENT_IDS_FIELD_NUMBER: _ClassVar[int]
    BODY_SIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_TYPE_FIELD_NUMBER: _ClassVar[int]
    TREE_ID_FIELD_NUMBER: _ClassVar[int]
    TRAILERS_FIELD_NUMBER: _ClassVar[int]
    SHORT_STATS_FIELD_NUMBER: _ClassVar[int]
    REFERENCED_BY_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    id: str
    subject: bytes
    body: bytes
    author: CommitAuthor
    committer: CommitAuthor
    parent_ids: _containers.RepeatedScalarFieldContainer[str]
    body_size: int
    signature_type: SignatureType
    tree_id: str
    trailers: _containers.RepeatedCompositeFieldContainer[CommitTrailer]
    short_stats: CommitStatInfo
    referenced_by: _containers.RepeatedScalarFieldContainer[bytes]
    encoding: str
    def __init__(self, id: _Optional[str] = ..., subject: _Optional[bytes] = ..., body: _Optional[bytes] = ..., author: _Optional[_Union[CommitAuthor, _Mapping]] = ..., committer: _Optional[_Union[CommitAuthor, _Mapping]] = ..., parent_ids: _Optional[_Iterable[str]] = ..., body_size: _Optional[int] = ..., signature_type: _Optional[_Union[SignatureType, str]] = ..., tree_id: _Optional[str] = ..., trailers: _Optional[_Iterable[_Union[CommitTrailer, _Mapping]]] = ..., short_stats: _Optional[_Union[CommitStatInfo, _Mapping]] = ..., referenced_by: _Optional[_Iterable[bytes]] = ..., encoding: _Optional[str] = ...) -> None: ...

class InfoRefsRequest(_message.Message):
    __slots__ = ("repository", "git_config_options", "git_protocol")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    GIT_CONFIG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GIT_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    git_config_options: _containers.RepeatedScalarFieldContainer[str]
    git_protocol: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., git_config_options: _Optional[_Iterable[str]] = ..., git_protocol: _Optional[str] = ...) -> None: ...

class InfoRefsResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ListCommitsRequest(_message.Message):
    __slots__ = ("repository", "revisions", "pagination_params", "order", "max_parents", "disable_walk", "first_parent", "after", "before", "author", "reverse", "ignore_case", "commit_message_patterns", "skip", "paths")
    class Order(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[ListCommitsRequest.Order]
        TOPO: _ClassVar[ListCommitsRequest.Order]
        DATE: _ClassVar[ListCommitsRequest.Order]
    NONE: ListCommitsRequest.Order
    TOPO: ListCommitsRequest.Order
    DATE: ListCommitsRequest.Order
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_PARAMS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    MAX_PARENTS_FIELD_NUMBER: _ClassVar[int]
    DISABLE_WALK_FIELD_NUMBER: _ClassVar[int]
    FIRST_PARENT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_CASE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MESSAGE_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revisions: _containers.RepeatedScalarFieldContainer[str]
    pagination_params: PaginationParameter
    order: ListCommitsRequest.Order
    max_parents: int
    disable_walk: bool
    first_parent: bool
    after: _timestamp_pb2.Timestamp
    before: _timestamp_pb2.Timestamp
    author: bytes
    reverse: bool
    ignore_case: bool
    commit_message_patterns: _containers.RepeatedScalarFieldContainer[bytes]
    skip: int
    paths: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revisions: _Optional[_Iterable[str]] = ..., pagination_params: _Optional[_Union[PaginationParameter, _Mapping]] = ..., order: _Optional[_Union[ListCommitsRequest.Order, str]] = ..., max_parents: _Optional[int] = ..., disable_walk: _Optional[bool] = ..., first_parent: _Optional[bool] = ..., after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., author: _Optional[bytes] = ..., reverse: _Optional[bool] = ..., ignore_case: _Optional[bool] = ..., commit_message_patterns: _Optional[_Iterable[bytes]] = ..., skip: _Optional[int] = ..., paths: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListCommitsResponse(_message.Message):
    __slots__ = ("commits", "pagination_cursor")
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_CURSOR_FIELD_NUMBER: _ClassVar[int]
    commits: _containers.RepeatedCompositeFieldContainer[GitCommit]
    pagination_cursor: PaginationCursor
    def __init__(self, commits: _Optional[_Iterable[_Union[GitCommit, _Mapping]]] = ..., pagination_cursor: _Optional[_Union[PaginationCursor, _Mapping]] = ...) -> None: ...

class ListFilesRequest(_message.Message):
    __slots__ = ("repository", "revision")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revision: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revision: _Optional[bytes] = ...) -> None: ...

class ListFilesResponse(_message.Message):
    __slots__ = ("paths",)
    PATHS_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, paths: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListRefsRequest(_message.Message):
    __slots__ = ("repository", "patterns")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    patterns: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., patterns: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListRefsResponse(_message.Message):
    __slots__ = ("references",)
    class Reference(_message.Message):
        __slots__ = ("name", "target")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        name: bytes
        target: str
        def __init__(self, name: _Optional[bytes] = ..., target: _Optional[str] = ...) -> None: ...
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    references: _containers.RepeatedCompositeFieldContainer[ListRefsResponse.Reference]
    def __init__(self, references: _Optional[_Iterable[_Union[ListRefsResponse.Reference, _Mapping]]] = ...) -> None: ...

class OperationBranchUpdate(_message.Message):
    __slots__ = ("commit_id", "repo_created", "branch_created")
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    REPO_CREATED_FIELD_NUMBER: _ClassVar[int]
    BRANCH_CREATED_FIELD_NUMBER: _ClassVar[int]
    commit_id: str
    repo_created: bool
    branch_created: bool
    def __init__(self, commit_id: _Optional[str] = ..., repo_created: _Optional[bool] = ..., branch_created: _Optional[bool] = ...) -> None: ...

class PaginationCursor(_message.Message):
    __slots__ = ("next_cursor",)
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    next_cursor: str
    def __init__(self, next_cursor: _Optional[str] = ...) -> None: ...

class PaginationParameter(_message.Message):
    __slots__ = ("page_token", "limit")
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    page_token: str
    limit: int
    def __init__(self, page_token: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class PostReceivePackRequest(_message.Message):
    __slots__ = ("repository", "data", "gl_id", "gl_repository", "gl_username", "git_protocol", "git_config_options")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    GL_ID_FIELD_NUMBER: _ClassVar[int]
    GL_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    GL_USERNAME_FIELD_NUMBER: _ClassVar[int]
    GIT_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GIT_CONFIG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    data: bytes
    gl_id: str
    gl_repository: str
    gl_username: str
    git_protocol: str
    git_config_options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., data: _Optional[bytes] = ..., gl_id: _Optional[str] = ..., gl_repository: _Optional[str] = ..., gl_username: _Optional[str] = ..., git_protocol: _Optional[str] = ..., git_config_options: _Optional[_Iterable[str]] = ...) -> None: ...

class PostReceivePackResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class PostUploadPackRequest(_message.Message):
    __slots__ = ("repository", "data", "git_config_options", "git_protocol")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    GIT_CONFIG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GIT_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    data: bytes
    git_config_options: _containers.RepeatedScalarFieldContainer[str]
    git_protocol: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., data: _Optional[bytes] = ..., git_config_options: _Optional[_Iterable[str]] = ..., git_protocol: _Optional[str] = ...) -> None: ...

class PostUploadPackResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RawDiffRequest(_message.Message):
    __slots__ = ("repository", "left_commit_id", "right_commit_id")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    LEFT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHT_COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    left_commit_id: str
    right_commit_id: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., left_commit_id: _Optional[str] = ..., right_commit_id: _Optional[str] = ...) -> None: ...

class RawDiffResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RefExistsRequest(_message.Message):
    __slots__ = ("repository", "ref")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    ref: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., ref: _Optional[bytes] = ...) -> None: ...

class RefExistsResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bool
    def __init__(self, value: _Optional[bool] = ...) -> None: ...

class RemoveRepositoryRequest(_message.Message):
    __slots__ = ("repository",)
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ...) -> None: ...

class RemoveRepositoryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Repository(_message.Message):
    __slots__ = ("storage_name", "relative_path", "git_object_directory", "git_alternate_object_directories", "gl_repository", "gl_project_path")
    STORAGE_NAME_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_PATH_FIELD_NUMBER: _ClassVar[int]
    GIT_OBJECT_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    GIT_ALTERNATE_OBJECT_DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    GL_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    GL_PROJECT_PATH_FIELD_NUMBER: _ClassVar[int]
    storage_name: str
    relative_path: str
    git_object_directory: str
    git_alternate_object_directories: _containers.RepeatedScalarFieldContainer[str]
    gl_repository: str
    gl_project_path: str
    def __init__(self, storage_name: _Optional[str] = ..., relative_path: _Optional[str] = ..., git_object_directory: _Optional[str] = ..., git_alternate_object_directories: _Optional[_Iterable[str]] = ..., gl_repository: _Optional[str] = ..., gl_project_path: _Optional[str] = ...) -> None: ...

class RepositoryExistsRequest(_message.Message):
    __slots__ = ("repository",)
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ...) -> None: ...

class RepositoryExistsResponse(_message.Message):
    __slots__ = ("exists",)
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    exists: bool
    def __init__(self, exists: _Optional[bool] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ("name", "id", "target_commit", "message", "message_size", "tagger", "signature_type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_COMMIT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    TAGGER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    id: str
    target_commit: GitCommit
    message: bytes
    message_size: int
    tagger: CommitAuthor
    signature_type: SignatureType
    def __init__(self, name: _Optional[bytes] = ..., id: _Optional[str] = ..., target_commit: _Optional[_Union[GitCommit, _Mapping]] = ..., message: _Optional[bytes] = ..., message_size: _Optional[int] = ..., tagger: _Optional[_Union[CommitAuthor, _Mapping]] = ..., signature_type: _Optional[_Union[SignatureType, str]] = ...) -> None: ...

class TreeEntry(_message.Message):
    __slots__ = ("oid", "path", "type", "mode", "commit_oid", "flat_path")
    class EntryType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BLOB: _ClassVar[TreeEntry.EntryType]
        TREE: _ClassVar[TreeEntry.EntryType]
        COMMIT: _ClassVar[TreeEntry.EntryType]
    BLOB: TreeEntry.EntryType
    TREE: TreeEntry.EntryType
    COMMIT: TreeEntry.EntryType
    OID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_OID_FIELD_NUMBER: _ClassVar[int]
    FLAT_PATH_FIELD_NUMBER: _ClassVar[int]
    oid: str
    path: bytes
    type: TreeEntry.EntryType
    mode: int
    commit_oid: str
    flat_path: bytes
    def __init__(self, oid: _Optional[str] = ..., path: _Optional[bytes] = ..., type: _Optional[_Union[TreeEntry.EntryType, str]] = ..., mode: _Optional[int] = ..., commit_oid: _Optional[str] = ..., flat_path: _Optional[bytes] = ...) -> None: ...

class TreeEntryRequest(_message.Message):
    __slots__ = ("repository", "revision", "path", "limit", "max_size")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    revision: bytes
    path: bytes
    limit: int
    max_size: int
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., revision: _Optional[bytes] = ..., path: _Optional[bytes] = ..., limit: _Optional[int] = ..., max_size: _Optional[int] = ...) -> None: ...

class TreeEntryResponse(_message.Message):
    __slots__ = ("type", "oid", "size", "mode", "data")
    class ObjectType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COMMIT: _ClassVar[TreeEntryResponse.ObjectType]
        BLOB: _ClassVar[TreeEntryResponse.ObjectType]
        TREE: _ClassVar[TreeEntryResponse.ObjectType]
        TAG: _ClassVar[TreeEntryResponse.ObjectType]
    COMMIT: TreeEntryResponse.ObjectType
    BLOB: TreeEntryResponse.ObjectType
    TREE: TreeEntryResponse.ObjectType
    TAG: TreeEntryResponse.ObjectType
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    type: TreeEntryResponse.ObjectType
    oid: str
    size: int
    mode: int
    data: bytes
    def __init__(self, type: _Optional[_Union[TreeEntryResponse.ObjectType, str]] = ..., oid: _Optional[str] = ..., size: _Optional[int] = ..., mode: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UpdateReferencesRequest(_message.Message):
    __slots__ = ("repository", "updates")
    class Update(_message.Message):
        __slots__ = ("reference", "old_object_id", "new_object_id")
        REFERENCE_FIELD_NUMBER: _ClassVar[int]
        OLD_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
        NEW_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
        reference: bytes
        old_object_id: bytes
        new_object_id: bytes
        def __init__(self, reference: _Optional[bytes] = ..., old_object_id: _Optional[bytes] = ..., new_object_id: _Optional[bytes] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    updates: _containers.RepeatedCompositeFieldContainer[UpdateReferencesRequest.Update]
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[UpdateReferencesRequest.Update, _Mapping]]] = ...) -> None: ...

class UpdateReferencesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class User(_message.Message):
    __slots__ = ("gl_id", "name", "email", "gl_username", "timezone")
    GL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    GL_USERNAME_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    gl_id: str
    name: bytes
    email: bytes
    gl_username: str
    timezone: str
    def __init__(self, gl_id: _Optional[str] = ..., name: _Optional[bytes] = ..., email: _Optional[bytes] = ..., gl_username: _Optional[str] = ..., timezone: _Optional[str] = ...) -> None: ...

class UserCommitFilesAction(_message.Message):
    __slots__ = ("header", "content")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    header: UserCommitFilesActionHeader
    content: bytes
    def __init__(self, header: _Optional[_Union[UserCommitFilesActionHeader, _Mapping]] = ..., content: _Optional[bytes] = ...) -> None: ...

class UserCommitFilesActionHeader(_message.Message):
    __slots__ = ("action", "file_path", "previous_path", "base64_content", "execute_filemode", "infer_content")
    class ActionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CREATE: _ClassVar[UserCommitFilesActionHeader.ActionType]
        CREATE_DIR: _ClassVar[UserCommitFilesActionHeader.ActionType]
        UPDATE: _ClassVar[UserCommitFilesActionHeader.ActionType]
        MOVE: _ClassVar[UserCommitFilesActionHeader.ActionType]
        DELETE: _ClassVar[UserCommitFilesActionHeader.ActionType]
        CHMOD: _ClassVar[UserCommitFilesActionHeader.ActionType]
    CREATE: UserCommitFilesActionHeader.ActionType
    CREATE_DIR: UserCommitFilesActionHeader.ActionType
    UPDATE: UserCommitFilesActionHeader.ActionType
    MOVE: UserCommitFilesActionHeader.ActionType
    DELETE: UserCommitFilesActionHeader.ActionType
    CHMOD: UserCommitFilesActionHeader.ActionType
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FILE_PATH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_PATH_FIELD_NUMBER: _ClassVar[int]
    BASE64_CONTENT_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_FILEMODE_FIELD_NUMBER: _ClassVar[int]
    INFER_CONTENT_FIELD_NUMBER: _ClassVar[int]
    action: UserCommitFilesActionHeader.ActionType
    file_path: bytes
    previous_path: bytes
    base64_content: bool
    execute_filemode: bool
    infer_content: bool
    def __init__(self, action: _Optional[_Union[UserCommitFilesActionHeader.ActionType, str]] = ..., file_path: _Optional[bytes] = ..., previous_path: _Optional[bytes] = ..., base64_content: _Optional[bool] = ..., execute_filemode: _Optional[bool] = ..., infer_content: _Optional[bool] = ...) -> None: ...

class UserCommitFilesRequest(_message.Message):
    __slots__ = ("header", "action")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    header: UserCommitFilesRequestHeader
    action: UserCommitFilesAction
    def __init__(self, header: _Optional[_Union[UserCommitFilesRequestHeader, _Mapping]] = ..., action: _Optional[_Union[UserCommitFilesAction, _Mapping]] = ...) -> None: ...

class UserCommitFilesRequestHeader(_message.Message):
    __slots__ = ("repository", "user", "branch_name", "commit_message", "commit_author_name", "commit_author_email", "start_branch_name", "start_repository", "force", "start_sha", "timestamp", "expected_old_oid", "sign")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_AUTHOR_NAME_FIELD_NUMBER: _ClassVar[int]
    COMMIT_AUTHOR_EMAIL_FIELD_NUMBER: _ClassVar[int]
    START_BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    START_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    START_SHA_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    branch_name: bytes
    commit_message: bytes
    commit_author_name: bytes
    commit_author_email: bytes
    start_branch_name: bytes
    start_repository: Repository
    force: bool
    start_sha: str
    timestamp: _timestamp_pb2.Timestamp
    expected_old_oid: str
    sign: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., branch_name: _Optional[bytes] = ..., commit_message: _Optional[bytes] = ..., commit_author_name: _Optional[bytes] = ..., commit_author_email: _Optional[bytes] = ..., start_branch_name: _Optional[bytes] = ..., start_repository: _Optional[_Union[Repository, _Mapping]] = ..., force: _Optional[bool] = ..., start_sha: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_old_oid: _Optional[str] = ..., sign: _Optional[bool] = ...) -> None: ...

class UserCommitFilesResponse(_message.Message):
    __slots__ = ("branch_update", "index_error", "pre_receive_error")
    BRANCH_UPDATE_FIELD_NUMBER: _ClassVar[int]
    INDEX_ERROR_FIELD_NUMBER: _ClassVar[int]
    PRE_RECEIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    branch_update: OperationBranchUpdate
    index_error: str
    pre_receive_error: str
    def __init__(self, branch_update: _Optional[_Union[OperationBranchUpdate, _Mapping]] = ..., index_error: _Optional[str] = ..., pre_receive_error: _Optional[str] = ...) -> None: ...

class UserCreateBranchRequest(_message.Message):
    __slots__ = ("repository", "branch_name", "user", "start_point")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    START_POINT_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    branch_name: bytes
    user: User
    start_point: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., branch_name: _Optional[bytes] = ..., user: _Optional[_Union[User, _Mapping]] = ..., start_point: _Optional[bytes] = ...) -> None: ...

class UserCreateBranchResponse(_message.Message):
    __slots__ = ("branch",)
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    branch: Branch
    def __init__(self, branch: _Optional[_Union[Branch, _Mapping]] = ...) -> None: ...

class UserCreateTagRequest(_message.Message):
    __slots__ = ("repository", "tag_name", "user", "target_revision", "message", "timestamp")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    TAG_NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TARGET_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    tag_name: bytes
    user: User
    target_revision: bytes
    message: bytes
    timestamp: _timestamp_pb2.Timestamp
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., tag_name: _Optional[bytes] = ..., user: _Optional[_Union[User, _Mapping]] = ..., target_revision: _Optional[bytes] = ..., message: _Optional[bytes] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UserCreateTagResponse(_message.Message):
    __slots__ = ("tag",)
    TAG_FIELD_NUMBER: _ClassVar[int]
    tag: Tag
    def __init__(self, tag: _Optional[_Union[Tag, _Mapping]] = ...) -> None: ...

class UserDeleteBranchRequest(_message.Message):
    __slots__ = ("repository", "branch_name", "user", "expected_old_oid")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    branch_name: bytes
    user: User
    expected_old_oid: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., branch_name: _Optional[bytes] = ..., user: _Optional[_Union[User, _Mapping]] = ..., expected_old_oid: _Optional[str] = ...) -> None: ...

class UserDeleteBranchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UserFFBranchRequest(_message.Message):
    __slots__ = ("repository", "user", "commit_id", "branch", "expected_old_oid")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    commit_id: str
    branch: bytes
    expected_old_oid: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., commit_id: _Optional[str] = ..., branch: _Optional[bytes] = ..., expected_old_oid: _Optional[str] = ...) -> None: ...

class UserFFBranchResponse(_message.Message):
    __slots__ = ("branch_update", "pre_receive_error")
    BRANCH_UPDATE_FIELD_NUMBER: _ClassVar[int]
    PRE_RECEIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    branch_update: OperationBranchUpdate
    pre_receive_error: str
    def __init__(self, branch_update: _Optional[_Union[OperationBranchUpdate, _Mapping]] = ..., pre_receive_error: _Optional[str] = ...) -> None: ...

class UserMergeBranchRequest(_message.Message):
    __slots__ = ("repository", "user", "commit_id", "branch", "message", "apply", "timestamp", "expected_old_oid", "squash", "sign")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    APPLY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    SQUASH_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    commit_id: str
    branch: bytes
    message: bytes
    apply: bool
    timestamp: _timestamp_pb2.Timestamp
    expected_old_oid: str
    squash: bool
    sign: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., commit_id: _Optional[str] = ..., branch: _Optional[bytes] = ..., message: _Optional[bytes] = ..., apply: _Optional[bool] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_old_oid: _Optional[str] = ..., squash: _Optional[bool] = ..., sign: _Optional[bool] = ...) -> None: ...

class UserMergeBranchResponse(_message.Message):
    __slots__ = ("commit_id", "branch_update")
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_UPDATE_FIELD_NUMBER: _ClassVar[int]
    commit_id: str
    branch_update: OperationBranchUpdate
    def __init__(self, commit_id: _Optional[str] = ..., branch_update: _Optional[_Union[OperationBranchUpdate, _Mapping]] = ...) -> None: ...

class UserMergeToRefRequest(_message.Message):
    __slots__ = ("repository", "user", "source_sha", "branch", "target_ref", "message", "first_parent_ref", "allow_conflicts", "timestamp", "expected_old_oid", "sign")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SHA_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    TARGET_REF_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_PARENT_REF_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    source_sha: str
    branch: bytes
    target_ref: bytes
    message: bytes
    first_parent_ref: bytes
    allow_conflicts: bool
    timestamp: _timestamp_pb2.Timestamp
    expected_old_oid: str
    sign: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., source_sha: _Optional[str] = ..., branch: _Optional[bytes] = ..., target_ref: _Optional[bytes] = ..., message: _Optional[bytes] = ..., first_parent_ref: _Optional[bytes] = ..., allow_conflicts: _Optional[bool] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_old_oid: _Optional[str] = ..., sign: _Optional[bool] = ...) -> None: ...

class UserMergeToRefResponse(_message.Message):
    __slots__ = ("commit_id",)
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    commit_id: str
    def __init__(self, commit_id: _Optional[str] = ...) -> None: ...

class UserRebaseToRefRequest(_message.Message):
    __slots__ = ("repository", "user", "source_sha", "target_ref", "first_parent_ref", "timestamp", "expected_old_oid")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SHA_FIELD_NUMBER: _ClassVar[int]
    TARGET_REF_FIELD_NUMBER: _ClassVar[int]
    FIRST_PARENT_REF_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    source_sha: str
    target_ref: bytes
    first_parent_ref: bytes
    timestamp: _timestamp_pb2.Timestamp
    expected_old_oid: str
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., source_sha: _Optional[str] = ..., target_ref: _Optional[bytes] = ..., first_parent_ref: _Optional[bytes] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_old_oid: _Optional[str] = ...) -> None: ...

class UserRebaseToRefResponse(_message.Message):
    __slots__ = ("commit_id",)
    COMMIT_ID_FIELD_NUMBER: _ClassVar[int]
    commit_id: str
    def __init__(self, commit_id: _Optional[str] = ...) -> None: ...

class UserRevertRequest(_message.Message):
    __slots__ = ("repository", "user", "commit", "branch_name", "message", "start_branch_name", "start_repository", "dry_run", "timestamp", "expected_old_oid", "sign")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    START_BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    START_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OLD_OID_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    commit: GitCommit
    branch_name: bytes
    message: bytes
    start_branch_name: bytes
    start_repository: Repository
    dry_run: bool
    timestamp: _timestamp_pb2.Timestamp
    expected_old_oid: str
    sign: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., commit: _Optional[_Union[GitCommit, _Mapping]] = ..., branch_name: _Optional[bytes] = ..., message: _Optional[bytes] = ..., start_branch_name: _Optional[bytes] = ..., start_repository: _Optional[_Union[Repository, _Mapping]] = ..., dry_run: _Optional[bool] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_old_oid: _Optional[str] = ..., sign: _Optional[bool] = ...) -> None: ...

class UserRevertResponse(_message.Message):
    __slots__ = ("branch_update", "create_tree_error", "commit_error", "pre_receive_error", "create_tree_error_code")
    class CreateTreeError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[UserRevertResponse.CreateTreeError]
        EMPTY: _ClassVar[UserRevertResponse.CreateTreeError]
        CONFLICT: _ClassVar[UserRevertResponse.CreateTreeError]
    NONE: UserRevertResponse.CreateTreeError
    EMPTY: UserRevertResponse.CreateTreeError
    CONFLICT: UserRevertResponse.CreateTreeError
    BRANCH_UPDATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TREE_ERROR_FIELD_NUMBER: _ClassVar[int]
    COMMIT_ERROR_FIELD_NUMBER: _ClassVar[int]
    PRE_RECEIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TREE_ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    branch_update: OperationBranchUpdate
    create_tree_error: str
    commit_error: str
    pre_receive_error: str
    create_tree_error_code: UserRevertResponse.CreateTreeError
    def __init__(self, branch_update: _Optional[_Union[OperationBranchUpdate, _Mapping]] = ..., create_tree_error: _Optional[str] = ..., commit_error: _Optional[str] = ..., pre_receive_error: _Optional[str] = ..., create_tree_error_code: _Optional[_Union[UserRevertResponse.CreateTreeError, str]] = ...) -> None: ...

class UserSquashRequest(_message.Message):
    __slots__ = ("repository", "user", "start_sha", "end_sha", "author", "commit_message", "timestamp", "sign")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    START_SHA_FIELD_NUMBER: _ClassVar[int]
    END_SHA_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    user: User
    start_sha: str
    end_sha: str
    author: User
    commit_message: bytes
    timestamp: _timestamp_pb2.Timestamp
    sign: bool
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., user: _Optional[_Union[User, _Mapping]] = ..., start_sha: _Optional[str] = ..., end_sha: _Optional[str] = ..., author: _Optional[_Union[User, _Mapping]] = ..., commit_message: _Optional[bytes] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sign: _Optional[bool] = ...) -> None: ...

class UserSquashResponse(_message.Message):
    __slots__ = ("squash_sha",)
    SQUASH_SHA_FIELD_NUMBER: _ClassVar[int]
    squash_sha: str
    def __init__(self, squash_sha: _Optional[str] = ...) -> None: ...

class UserUpdateBranchRequest(_message.Message):
    __slots__ = ("repository", "branch_name", "user", "newrev", "oldrev")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    NEWREV_FIELD_NUMBER: _ClassVar[int]
    OLDREV_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    branch_name: bytes
    user: User
    newrev: bytes
    oldrev: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., branch_name: _Optional[bytes] = ..., user: _Optional[_Union[User, _Mapping]] = ..., newrev: _Optional[bytes] = ..., oldrev: _Optional[bytes] = ...) -> None: ...

class UserUpdateBranchResponse(_message.Message):
    __slots__ = ("pre_receive_error",)
    PRE_RECEIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    pre_receive_error: str
    def __init__(self, pre_receive_error: _Optional[str] = ...) -> None: ...

class WriteRefRequest(_message.Message):
    __slots__ = ("repository", "ref", "revision", "old_revision")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OLD_REVISION_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    ref: bytes
    revision: bytes
    old_revision: bytes
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., ref: _Optional[bytes] = ..., revision: _Optional[bytes] = ..., old_revision: _Optional[bytes] = ...) -> None: ...

class WriteRefResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
