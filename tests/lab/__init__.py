"""Real hosts to test on: namespaces of this machine, each with an OpenSSH server."""
