"""A W&B server for tests: it answers on localhost what wandb 0.31 asks for, and keeps what arrives.

It knows runs (upserted by name), their history by line number as the real server does, artefacts (a version is new only
when its digest is), which run used which, files, and workspaces. It can refuse, stall or be told to fail.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

KEY = "a" * 40  # the shape of an API key; nobody's
ENTITY = "lab"
TIME = "2026-01-01T00:00:00Z"
Json = dict[str, Any]
# (method, path, GraphQL operation) -> a status code to fail with, or None
Fault = Callable[[str, str, str], int | None]


@dataclass
class Run:
    """A run as the server has it."""

    name: str
    fields: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    history: dict[int, Json] = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def rows(self) -> list[Json]:
        """Rows in order, without W&B's own keys."""
        lines = [self.history[number] for number in sorted(self.history)]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in lines]


class Stub(ThreadingHTTPServer):
    """The server; `address` is its URL. Use it as a context manager."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Json] = {}
        self.views: list[Json] = []
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str, str]] = []
        self.fault: Fault = lambda method, path, operation: None
        self.delay = 0.0
        self.lock = threading.RLock()

    def __enter__(self) -> Stub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def versions(self, kind: str | None = None) -> list[Json]:
        """Committed artefacts, of one type or all."""
        found = [each for each in self.artifacts.values() if each["state"] == "COMMITTED"]
        return [each for each in found if kind in (None, each["type"])]

    def graphql(self, operation: str, variables: Json) -> Json:
        """The answer to a query, with its effect."""
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            raise KeyError(operation)
        with self.lock:
            return answer(variables)

    def _Viewer(self, _: Json) -> Json:
        return {"viewer": {"id": "u", "entity": ENTITY, "username": "someone", "email": "", "flags": "{}",
                           "teams": {"edges": []}}}  # fmt: skip

    def _ServerFeaturesQuery(self, _: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": ENTITY}}
        return {"model": {**project, "bucket": run and self._resume(run)}}

    def _resume(self, run: Run) -> Json:
        lines = [run.history[number] for number in sorted(run.history)]
        return {
            "id": run.name, "name": run.name, "displayName": run.fields.get("displayName"),
            "tags": run.fields.get("tags"),
            "summaryMetrics": json.dumps(run.summary), "config": json.dumps(run.config), "notes": None,
            "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]), "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def _UpsertBucket(self, variables: Json) -> Json:
        name = variables["name"] or variables["id"]
        new = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        run.config |= json.loads(variables.get("config") or "{}")
        run.summary |= json.loads(variables.get("summaryMetrics") or "{}")
        project = {
            "id": "p",
            "name": variables.get("project") or "rethesis",
            "entity": {"id": "e", "name": ENTITY},
        }
        bucket = {"id": name, "name": name, "displayName": run.fields.get("displayName"), "description": None,
                  "config": json.dumps(run.config), "sweepName": None, "project": project,
                  "historyLineCount": len(run.history)}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _CreateArtifact(self, variables: Json) -> Json:
        given = variables["input"]
        name = (
            given["artifactCollectionNames"][0]
            if given.get("artifactCollectionNames")
            else given["artifactCollectionName"]
        )
        known = next((key for key, each in self.artifacts.items()
                      if (each["name"], each["digest"]) == (name, given["digest"])), None)  # fmt: skip
        key = known or f"artifact-{len(self.artifacts)}"
        self.artifacts.setdefault(
            key,
            {"name": name, "type": given["artifactTypeName"], "digest": given["digest"], "state": "PENDING",
             "run": given.get("runName"), "metadata": json.loads(given.get("metadata") or "{}")},
        )  # fmt: skip
        state = self.artifacts[key]["state"]
        return {
            "createArtifact": {
                "artifact": {"id": key, "state": state, "artifactSequence": {"latestArtifact": None}}
            }
        }

    def _CommitArtifact(self, variables: Json) -> Json:
        key = variables["artifactID"]
        self.artifacts[key]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": key, "digest": self.artifacts[key]["digest"]}}}

    def _UseArtifact(self, variables: Json) -> Json:
        given = variables.get("input", variables)
        used = self.runs.setdefault(given["runName"], Run(given["runName"])).used
        if given["artifactID"] not in used:
            used.append(given["artifactID"])
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def _CreateArtifactManifest(self, variables: Json) -> Json:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(variables["artifactID"])}}

    def _UpdateArtifactManifest(self, variables: Json) -> Json:
        return {
            "updateArtifactManifest": {"artifactManifest": self._manifest(variables["artifactManifestID"])}
        }

    def _manifest(self, key: str) -> Json:
        upload = {"id": key, "uploadUrl": f"{self.address}/storage/manifest/{key}", "uploadHeaders": []}
        return {"id": key, "file": upload}

    def _CreateArtifactFiles(self, variables: Json) -> Json:
        nodes = [
            {"node": {"storagePath": None, "uploadUrl": f"{self.address}/storage/{each['artifactID']}/{each['name']}",
                      "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": each["artifactID"]}}}
            for each in variables["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CreateRunFiles(self, variables: Json) -> Json:
        files = [{"name": name, "uploadUrl": f"{self.address}/storage/run/{variables['run']}/{name}"}
                 for name in variables["files"]]  # fmt: skip
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _GetDefaultEntity(self, _: Json) -> Json:
        return {"viewer": {"id": "u", "entity": ENTITY}}

    def _ArtifactType(self, variables: Json) -> Json:
        name = variables["name"].partition(":")[0]
        kind = next((each["type"] for each in self.versions() if each["name"] == name), None)
        return {"project": {"artifact": kind and {"artifactType": {"name": kind}}}}

    def _ArtifactMembershipByName(self, variables: Json) -> Json:
        name = variables["name"].partition(":")[0]
        found = [
            key
            for key, each in self.artifacts.items()
            if each["name"] == name and each["state"] == "COMMITTED"
        ]
        if not found:
            return {"project": {"artifactCollectionMembership": None}}
        each = self.artifacts[found[-1]]
        entity = {"name": ENTITY}
        project = {"id": "p", "internalId": "1", "name": variables["project"], "entity": entity}
        artifact = {
            "__typename": "Artifact", "id": found[-1], "versionIndex": 0, "artifactType": {"name": each["type"]},
            "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": project},
            "description": None, "metadata": json.dumps(each["metadata"]), "ttlDurationSeconds": 0,
            "ttlIsInherited": True, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1,
            "digest": each["digest"], "digestAlgorithm": "MANIFEST_MD5", "commitHash": "c", "fileCount": 1,
            "createdAt": TIME, "updatedAt": TIME, "aliases": [],
        }  # fmt: skip
        membership = {
            "__typename": "ArtifactCollectionMembership", "id": found[-1], "versionIndex": 0, "createdAt": TIME,
            "aliases": [], "artifact": artifact,
            "artifactCollection": {"__typename": "ArtifactSequence", "name": name, "project": project},
        }  # fmt: skip
        return {"project": {"artifactCollectionMembership": membership}}

    def _Run(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        node = run and {
            "id": run.name, "name": run.name, "displayName": run.fields.get("displayName"), "tags": [],
            "state": "finished",
            "config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}",
            "group": run.fields.get("groupName"), "jobType": run.fields.get("jobType"), "commit": None,
            "readOnly": False, "createdAt": TIME, "heartbeatAt": TIME, "description": None, "notes": None,
            "projectId": 1, "historyLineCount": len(run.history), "sweepName": None, "historyKeys": None,
            "user": {"name": "someone", "username": "someone"},
        }  # fmt: skip
        return {"project": {"internalId": "1", "run": node}}

    def _View(self, variables: Json) -> Json:
        nodes = [{"node": view} for view in self.views if view["name"] == variables["viewName"]]
        return {"project": {"allViews": {"edges": nodes}}}

    def _UpsertView2(self, variables: Json) -> Json:
        known = next((view for view in self.views if view["id"] == variables.get("id")), None)
        view = known if known is not None else {"id": f"view-{len(self.views)}"}
        view |= {key: variables[key] for key in ("name", "displayName", "spec")}
        if known is None:
            self.views.append(view)
        return {"upsertView": {"view": view, "inserted": known is None}}

    def _ClientIDMapping(self, _: Json) -> Json:
        return {"clientIDMapping": None}

    def stream(self, name: str, body: Json) -> None:
        """What a run's file stream brings: rows by line number, the summary, the end."""
        with self.lock:
            run = self.runs.setdefault(name, Run(name))
            for file, chunk in (body.get("files") or {}).items():
                lines = [
                    json.loads(line) for line in chunk.get("content") or [] if line.strip().startswith("{")
                ]
                if file == "wandb-history.jsonl":
                    run.history |= dict(enumerate(lines, start=chunk["offset"]))
                elif file == "wandb-summary.json" and lines:
                    run.summary |= lines[-1]
            if body.get("complete"):
                run.exit_code = body.get("exitcode")


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for the stub; every request is in `Stub.log`."""

    protocol_version = "HTTP/1.1"
    server: Stub  # pyright: ignore

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_PUT(self) -> None:
        body = self._body()
        if not self._refused("storage"):
            self.server.files[unquote(urlsplit(self.path).path).removeprefix("/storage/")] = body
            self._answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        operation = _operation(body) if self.path.startswith("/graphql") else "stream"
        if self._refused(operation):
            return
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode():
            self._answer(401, {"errors": [{"message": "user is not logged in"}]})
        elif operation == "stream":
            self.server.stream(self.path.split("/")[-2], body)
            self._answer(200, {"exitcode": None, "limits": {}})
        else:
            try:
                self._answer(200, {"data": self.server.graphql(operation, body.get("variables") or {})})
            except KeyError as missing:
                self._answer(200, {"errors": [{"message": f"unknown operation {missing}"}]})

    def _refused(self, operation: str) -> bool:
        self.server.log.append((self.command, self.path, operation))
        time.sleep(self.server.delay)
        status = self.server.fault(self.command, self.path, operation)
        if status is None:
            return False
        self._answer(status, {"errors": [{"message": f"told to answer {status}"}]})
        return True

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            data = gzip.decompress(data)
        return data

    def _answer(self, status: int, value: Json) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _operation(body: Json) -> str:
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", str(body.get("query", "")))
    return str(body.get("operationName") or (found[1] if found else ""))
