"""pyinfra's hosts."""

import os

data = {
    "ssh_user": "root",
    "ssh_key": os.environ["KEY_FILE"],
    "ssh_known_hosts_file": os.environ["KNOWN_HOSTS"],
    "ssh_allow_agent": False,
    "ssh_look_for_keys": False,
}
hosts = [(host, data) for host in os.environ["HOSTS"].split()]
