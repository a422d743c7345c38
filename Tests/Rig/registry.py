"""Provides a registry with plugins, as far as `docker plugin install` and `upgrade` need one.

    with Registry() as registry:
        reference = registry.add("polarity-ecs-ebs-plugin:1.2.3", "folder of config.json and rootfs")
        engine.docker("plugin", "install", "--grant-all-permissions", reference)

It supports only GET and HEAD of the distribution API's manifests and blobs. dockerd uses no TLS for
a registry on 127.0.0.1.
"""

import gzip
import hashlib
import http.server
import io
import json
import pathlib
import tarfile
import threading

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.plugin.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    def __init__(self):
        self.contents = {}  # path below /v2/ -> (media type, bytes)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, folder):
        """Adds the plugin that `docker plugin create` would make from the folder; returns its
        reference."""
        repository, tag = name.split(":")
        rootfs = io.BytesIO()
        with tarfile.open(fileobj=rootfs, mode="w") as tar:
            tar.add(pathlib.Path(folder) / "rootfs", ".")
        config = json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))
        config["rootfs"] = {"type": "layers", "diff_ids": [digest(rootfs.getvalue())]}
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self._blob(repository, CONFIG, json.dumps(config).encode()),
            "layers": [self._blob(repository, LAYER, gzip.compress(rootfs.getvalue(), 1))]}
        body = json.dumps(manifest).encode()
        for name in (tag, digest(body)):
            self.contents[f"{repository}/manifests/{name}"] = MANIFEST, body
        return f"127.0.0.1:{self.server.server_address[1]}/{repository}:{tag}"

    def _blob(self, repository, media_type, body):
        self.contents[f"{repository}/blobs/{digest(body)}"] = "application/octet-stream", body
        return {"mediaType": media_type, "size": len(body), "digest": digest(body)}

    def answer(self, request):
        path = request.path.removeprefix("/v2/")
        status, (media_type, body) = 200, self.contents.get(path, ("application/json", b"{}"))
        if path and path not in self.contents:
            status = 404
        request.send_response(status)
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(body)))
        if status == 200:
            request.send_header("Docker-Content-Digest", digest(body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def digest(body):
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
