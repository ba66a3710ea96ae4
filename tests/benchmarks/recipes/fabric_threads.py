"""A short Fabric script: no lock, no rollback, no verification."""

import os
import subprocess

from fabric import ThreadingGroup

base, tarball = os.environ["BASE"], os.environ["TARBALL"]
release = f"{base}/releases/{os.environ['VERSION']}"
subprocess.run(["tar", "-C", os.environ["SITE"], "-cf", tarball, "."], check=True)
keys = {"key_filename": os.environ["KEY_FILE"], "allow_agent": False, "look_for_keys": False}
hosts = ThreadingGroup(*os.environ["HOSTS"].split(), user="root", connect_kwargs=keys)
hosts.put(tarball, "/tmp/fabric.tar")
hosts.run(f"mkdir -p {release} && tar -xf /tmp/fabric.tar -C {release}\n{os.environ['RESTART']}")
