"""A Hugging Face Hub on 127.0.0.1, for tests: the real client talks to it, nothing leaves this machine.

    def test_push(hub, model_dir):                      # fixture `hub`, of tests/conftest.py
        HfApi().create_repo("me/model", private=True)   # HF_ENDPOINT, HF_TOKEN and caches are set, offline mode is off,
        HfApi().upload_folder(...)                      # in this process and in those that it starts
        assert hub.files("me/model").keys() >= {"config.json", "model.safetensors"}

It speaks what huggingface_hub 2.4, transformers 5.23 and datasets 5.2 ask: who I am, repositories (public, private,
gated), files and trees, commits, branches, tags, Git LFS in one part and in many, downloads with ETags, ranges and
redirects to a storage host of its own. Xet is off (`HF_HUB_DISABLE_XET`): uploads go by Git LFS, and `upload_folder`
makes one commit; with Xet it makes one for every 250 files or so, and `upload_large_folder` is gone from this client.

- `hub.put("me/chats", {"rows.jsonl": b"..."}, kind="dataset")` commits without the client, and returns the commit's
  id; `hub.repo("me/model", kind="dataset")` is a `state.Repo`: `branches`, `tags`, `commits`, `private`, `gated`.
- `hub.files(repo_id, revision="main", kind="model")`: what is published, as bytes by path.
- `hub.token` may write as user `me` (in HF_TOKEN), `hub.reader` may only read as `me`, `hub.stranger` is another
  user's; `hub.accounts[token] = Account(...)` adds one.
- `hub.fail("POST", "*/commit/*", 500)`: the first request that matches gets this answer; `nth=2` the second, `times=3`
  three in a row. Instead of a status: `"drop before"` (not done, no answer), `"drop after"` (done, no answer), `"cut
  request"` (half of the body read), `"cut answer"` (half of the body sent), `"corrupt request"`, `"corrupt answer"`
  (one byte changed), `"slow"` (done after `seconds`). `retry_after=1` sends that header. It returns the `Fault`, whose
  `done` counts how often it struck; `hub.faults` lists all. Paths of the storage host begin with `/storage/`.
- `hub.requests`: every request (`host`, `method`, `path`, `token`, `status`); `hub.asked("PUT", "/storage/")` those of
  one kind; `hub.unserved` those that it knows no answer to; `hub.leaks()` those that show a token to another than the
  Hub, or elsewhere than in the Authorization header.
- The fixture `waits` (a list of seconds) has the client's retries not sleep.

Each commit is atomic: all files of it, or none. A file in LFS is committed only when its bytes came whole. A corrupt
answer of the right length is not noticed by the client: it checks the size alone.
"""

from loopback_hub.server import LoopbackHub
from loopback_hub.state import Account, Repo

__all__ = ["Account", "LoopbackHub", "Repo"]
