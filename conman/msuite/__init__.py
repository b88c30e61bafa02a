"""The built-in test suite: `conman msuite PATH`, also `python -m conman.msuite PATH` (`spec.md` 9).

It reads every regular file below PATH, except in `.git`; symlinks are not followed. What it finds:

| rule | meaning |
|---|---|
| `unreadable` | a file or folder can't be read |
| `encoding` | a JSON, YAML or TOML file is not UTF-8, or has a byte order mark that its format forbids |
| `too-large` | a JSON, YAML or TOML file is over 50 MiB, or nested too deeply, to be checked |
| `merge-marker` | a text file holds the marks of an unresolved merge |
| `syntax` | a JSON, YAML (each document) or TOML file does not parse |
| `duplicate-key` | a key stands twice in one object, mapping or table |
| `yaml-alias` | a YAML alias names no anchor, names what it stands in, or expands to millions of values |
| `schema` | a value does not match the JSON Schema of its file |
| `schema-invalid` | a JSON Schema is none, or refers to one that is not in the repository |
| `schema-reference` | the schema that a file names is not in the repository |
| `dangling-reference` | a value names a file, a value or a thing that is not in the repository |

Which schema holds for a file:

- `schemas/NAME.schema.json` or `schemas/NAME.json` (also `.yaml`, `.yml`) holds for every file in the folder `NAME/`,
  however deep, and for the file `NAME.json`, `NAME.yaml`, `NAME.yml` or `NAME.toml` beside that folder. `NAME` may have
  folders: `schemas/a/b.schema.json` holds for `a/b/**`. The most specific one counts.
- The name of a config type stands for its folder too: `schemas/entity.schema.json` holds for `entities/**`.
- A file may name one more by a top-level `$schema` with a path relative to its own folder (`../schemas/page.json`); that
  key itself is then not looked at by the schemas. A `$schema` with a URL names the dialect of a schema, or nothing.
- Schemas refer to each other by relative paths or by their `$id`; nothing is ever fetched.
- Two keywords of Conman's own say that a value refers to the repository, and every other program that reads the schema
  passes over them: `"format": "conman-path"` (a file or folder), and `"x-conman-ref": "providers"` (a thing that a file in
  the folder `providers/` defines).
- Each YAML document is judged by itself. Values with a custom tag (`!secret`, `!Ref`) are never built, and a schema
  finding that depends on one is left out, since only the program that reads the file knows the value.

What a reference is, and what it may name:

- A `$ref` in any file outside of `schemas/`: `#/a/b` is a JSON pointer into the same file, `types.yaml#/a/b` one into another
  file, and `types.yaml` that file. Its text counts as a path when it ends in `.json`, `.yaml`, `.yml` or `.toml`, or starts
  with `/`, `./` or `../`; anything else may be a name in some program's own sense. A pointer may start at any mapping
  around the `$ref`, since documents are put into documents; an item of a list has its index, or `name=web-1`.
- A path is looked for from the folder of its file and from the root, and may leave out the file's ending.
- A folder defines the names of its files without their endings, the `id`, `name` and `key` of each mapping in them, and the
  keys that mappings stand under.
- Nothing is said of URLs, templates (`${…}`, `{{…}}`), anchors (`#name`), documents with an `$id` of their own, what lies
  beyond a symlink or another `$ref`, and files that do not parse: their own finding tells of those.

Each finding is one line, `path:line:column: severity: rule: message`; a summary line ends the output. `--report FILE`,
or `MSUITE_REPORT`, writes the same as JSON. Exit codes: 0 no finding, 1 findings, 2 the check could not be made (usage,
no such folder, report not writable, out of memory). For people who use it: docs/msuite.md.
"""

from __future__ import annotations

from conman.msuite.main import Form, run

__all__ = ["Form", "run"]
