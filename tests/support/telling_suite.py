"""A suite that tells its environment and profile in its output and its report, in all ways in which programs write texts.

It fails, with a secret in its last words, when the tree has a file `fail.flag`.
"""

import base64
import json
import os
import sys
import time
from html import escape
from pathlib import Path
from urllib.parse import quote, quote_plus

profile = json.loads(Path(os.environ["CONMAN_PROFILE_JSON"]).read_text(encoding="utf-8"))
secrets = profile["secrets"]
assert all(os.environ[name] == value for name, value in secrets.items())
print("the suite has", len(secrets), "secrets, and", os.environ.get("KNOWN"))
print(dict(os.environ))
print(json.dumps(profile), json.dumps(profile, ensure_ascii=False))
print(Path(os.environ["CONMAN_PROFILE_ENV"]).read_text(encoding="utf-8"))
for value in secrets.values():
    for told in (value, repr(value), quote(value), quote(value, safe=""), quote_plus(value), escape(value)):
        print("told", told, file=sys.stderr)
    data = value.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        print("encoded", *(encode(before + data + b" and more").decode() for before in (b"", b"a", b"ab")))
    print("x" * 8188 + value)
    for part in (value[:7], value[7:]):
        sys.stdout.write(part)
        sys.stdout.flush()
        time.sleep(0.05)
    print()
report = {"findings": [{"message": f"{name} is {value}", value: value} for name, value in secrets.items()]}
Path(os.environ["MSUITE_REPORT"]).write_text(json.dumps(report), encoding="utf-8")
if Path("fail.flag").exists():
    sys.exit("it failed with " + " and ".join(secrets.values()))
