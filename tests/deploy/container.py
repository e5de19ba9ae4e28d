#!/usr/bin/env python3
"""The image of deploy/container: built by buildah, run by unshare as the image's own configuration says.

    tests/deploy/container.py TARGET/debug/tidegate

Links a static program of the same profile as the argument's. Needs root and buildah; exits with 77 without.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

from support import INSIDE, ROOT, Running, ask, eventually, inside_namespaces, workplace

BINARY = pathlib.Path(sys.argv[1]).resolve()
STATIC = BINARY.parent.parent / "container" / "static"


def main():
    if not shutil.which("buildah"):
        print("container: SKIPPED, there is no buildah (Debian package buildah)", file=sys.stderr)
        sys.exit(77)
    if not os.environ.get(INSIDE):
        link()
    inside_namespaces()
    with workplace() as folder, Running() as running:
        storage = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]
        buildah = lambda *words: run("buildah", *storage, *words)
        # The script takes the first engine that it finds: this one, with a storage of its own.
        (folder / "bin").mkdir()
        wrapper = folder / "bin/buildah"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("buildah")} {" ".join(map(str, storage))} "$@"\n')
        wrapper.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "BUILDAH_ISOLATION": "chroot"}
        run(ROOT / "deploy/container/build", "tidegate:test", STATIC, env=environment)

        image = json.loads(buildah("inspect", "--type", "image", "tidegate:test"))
        configuration = image["Docker"]["config"]
        check_configuration(configuration)
        container = buildah("from", "tidegate:test").strip()
        root = buildah("mount", container).strip()
        files = sorted(str(path.relative_to(root)) for path in pathlib.Path(root).rglob("*") if path.is_file())
        assert files == ["tidegate"], files
        try:
            start(running, folder, root, configuration)
        finally:
            run("umount", "--lazy", "--recursive", folder / "root")
    print("container: passed")


def link():
    """A static program beside the ordinary one, which stays as it was."""
    profile = "release" if BINARY.parent.name == "release" else "dev"
    kept = BINARY.with_name("tidegate.kept")
    shutil.copy2(BINARY, kept)
    STATIC.parent.mkdir(exist_ok=True)
    run("cargo", "rustc", "--locked", "--quiet", "--profile", profile, "--bin", "tidegate", "--",
        "-C", "target-feature=+crt-static", cwd=ROOT)
    shutil.copy2(BINARY, STATIC)
    kept.replace(BINARY)


def check_configuration(configuration):
    version = json.loads(run(STATIC, "version", "--json"))
    labels = {key.rpartition(".")[2]: value for key, value in configuration["Labels"].items()}
    assert labels["version"] == version["version"], labels
    assert labels["revision"] == version["revision"], labels
    assert labels["licenses"] == "Apache-2.0 OR MIT", labels
    assert configuration["User"] == "65532:65532", configuration
    assert configuration["Entrypoint"] == ["/tidegate"] and configuration["Cmd"] == ["serve"], configuration


def start(running, folder, root, configuration):
    """What an engine does, by unshare: another user, no new privileges, nothing writable; in the network of the test."""
    bundle = folder / "root"
    shutil.copytree(root, bundle)
    run("mount", "--bind", bundle, bundle)
    # By hand, as `chroot` does it: a clear word, and no panic.
    bare = subprocess.run(["unshare", f"--root={bundle}", "/tidegate", "serve"], capture_output=True, text=True)
    assert bare.returncode == 1 and "Mount /dev" in bare.stderr and "panicked" not in bare.stderr, bare
    # Every engine mounts these two.
    for place in ("dev", "proc"):
        (bundle / place).mkdir(exist_ok=True)
        run("mount", "--bind", f"/{place}", bundle / place)
    run("mount", "-o", "remount,bind,ro", bundle)
    run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")
    uid, gid = configuration["User"].split(":")
    inside = ["setpriv", "--no-new-privs", "--clear-groups", "unshare", "--fork", "--pid", "--kill-child=SIGTERM", f"--root={bundle}",
              f"--setuid={uid}", f"--setgid={gid}"]
    environment = {"TIDEGATE_LISTEN": "0.0.0.0:53", "TIDEGATE_AWS": "192.0.2.53", "TIDEGATE_DEFAULT": "192.0.2.53",
                   "PATH": os.environ["PATH"]}
    command = [*inside, *configuration["Entrypoint"], *configuration["Cmd"]]
    process = running.start(*command, env=environment)
    # "localhost" is answered without an upstream.
    eventually("the container answers", lambda: ask("127.0.0.1", "localhost") == (0, ["127.0.0.1"]), 30)
    health = configuration["Healthcheck"]["Test"]
    assert health[0] == "CMD", health
    assert run(*inside, *health[1:]).strip() == "live"
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    status = pathlib.Path(f"/proc/{children[0]}/status").read_text()
    assert "Uid:\t65532\t65532\t65532\t65532" in status and "CapEff:\t0000000000000000" in status, status
    os.kill(int(children[0]), signal.SIGTERM)
    assert process.wait(timeout=30) == 0, running.said(process)


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main()
