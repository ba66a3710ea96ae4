"""A pyinfra deployment, given a tarball: its own sync of files takes a command or more for each."""

import os
import subprocess

from pyinfra.operations import files, server

base, tarball = os.environ["BASE"], os.environ["TARBALL"]
release = f"{base}/releases/{os.environ['VERSION']}"
if not os.path.exists(tarball):  # this file is run once for each host
    subprocess.run(["tar", "-C", os.environ["SITE"], "-cf", tarball, "."], check=True)
files.put(src=tarball, dest=f"{base}/release.tar")
server.shell(
    commands=[
        f"mkdir -p {release} && tar -xf {base}/release.tar -C {release}",
        os.environ["RESTART"],
    ]
)
